"""Whether a method can learn from batches of so many images."""

from ssl_lightning.errors import UserError


def check_batches(
    batch_size: int, shares: tuple[int, int], method: object, size: int | None = None, subset: str = ""
) -> None:
    """Raises UserError where images cannot be divided into batches that the method can learn from.

    Args:
        batch_size: images per optimizer step.
        shares: processes, and batches of each in a step.
        size: of the subset; None where it is not known yet.
        subset: what it is called.
    """
    processes, accumulated = shares
    tasks = getattr(method, "tasks", 1)
    parts = processes * accumulated * tasks
    if batch_size % parts:
        raise UserError(
            f"batch_size is {batch_size}, which {processes} process{'es' * (processes > 1)} cannot share equally"
            + (f" in {accumulated} parts each" if accumulated > 1 else "")
            + (f" in {tasks} tasks (method.tasks)" if tasks > 1 else "")
            + f". It counts the images of all processes: choose a multiple of {parts}."
        )
    needed = getattr(method, "min_images", 1)
    if batch_size // parts < needed:
        raise UserError(
            f"batch_size is {batch_size}, which leaves {batch_size // parts} image to each "
            f"{'process' if tasks == 1 else f'of {tasks} tasks (method.tasks)'}, but "
            f"{type(method).__name__} compares at least {needed} with one another. Choose {needed * parts} or more."
        )
    if size is not None and batch_size > size:
        largest = size - size % parts
        enough = largest >= max(needed, 1) * parts
        raise UserError(
            f"batch_size is {batch_size}, but the subset has only {size} image{'s' * (size != 1)} ({subset}). "
            + (f"The largest legal batch_size is {largest}." if enough else "Raise subset.fraction: it is too few.")
        )
