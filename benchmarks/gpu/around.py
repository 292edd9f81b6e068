"""What surrounds training: evaluation, and where images lie."""

import time
from collections.abc import Iterator

from benchmarks.decoding import write_images
from benchmarks.gpu.modes import Mode
from benchmarks.gpu.setting import Figures, Setting
from benchmarks.training import ssl_train
from ssl_lightning.pipeline.pretrain import pretrain


def evaluation(setting: Setting) -> Iterator[Figures]:
    """Seconds of the standard evaluation of a finished run, from opening its data to writing its metrics."""
    options = [*Mode().overrides, "trainer.max_epochs=1", "callbacks=none"]
    pretrain(setting.config(*options))
    few = ["evaluation.l2_grid=[1.0e-2]", "evaluation.draws=1", "evaluation.few_percents=[]"] if setting.toy else []
    started = time.monotonic()
    (further,) = pretrain(setting.config(*options, "evaluation=standard", *few)).evaluations()
    yield {"evaluation_seconds": time.monotonic() - started}
    if setting.folder:  # noise has no classes
        yield {name: further["metrics"][f"{name}/top1"] for name in ("linear", "knn")}


def storage(setting: Setting) -> Iterator[Figures]:
    """The same images from memory, on the device, and from files that workers decode."""
    folder = setting.folder
    if folder is None:
        folder = setting.work / "images"
        for part, number in (("train", setting.images // 5), ("test", setting.images // 50)):
            write_images(folder, max(number, 2 * setting.batch), 32, 32, part)
    epochs = f"trainer.max_epochs={2 if setting.toy else 5}"
    rates = {}
    for name in ("resident", "streamed"):
        options = [*Mode().overrides, epochs, f"sweep={name}", f"dataset.storage={name}"]
        few = ["dataset.workers=1"] if setting.toy else []
        rates[name] = ssl_train(setting.config(*options, *few, folder=folder))["images_per_second"]
        yield {f"{name}_images_per_second": rates[name]}
    yield {"streamed_of_resident": rates["streamed"] / rates["resident"]}
