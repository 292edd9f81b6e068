"""SimCLR on digits with a plain `L.Trainer`: no command, no config, no run's folder.

python examples/without_hydra.py
"""

import lightning as L
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssl_lightning import Augment, Digits, OptimizerRecipe, SimCLR, SubsetDataModule, View, load_encoder, resnet_tiny

L.seed_everything(0)
digits = Digits()
views = Augment([View(copies=2, crop_scale=(0.4, 1.0), rotation_degrees=20.0)])
data = SubsetDataModule(digits, augment=views, batch_size=256)
recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=3e-3, batch_size=256, weight_decay=1e-4)
method = SimCLR(resnet_tiny(channels=1), optimizer=recipe)

trainer = L.Trainer(max_epochs=10, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(method, data)
trainer.save_checkpoint("runs/simclr.ckpt", weights_only=True)

encoder = load_encoder("runs/simclr.ckpt", method=SimCLR(resnet_tiny(channels=1)))  # frozen, normalises
train, test = digits.train(), digits.test()
features, labels = encoder(train.images).numpy(), train.labels.numpy()  # [1257, 64], [1257]

nearest = KNeighborsClassifier(20, weights="distance").fit(features, labels)
print(f"k-NN accuracy: {nearest.score(encoder(test.images).numpy(), test.labels.numpy()):.3f}")
