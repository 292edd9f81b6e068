"""Errors of Python, torch, Lightning and the operating system, and what to do against each."""

import errno
from typing import NamedTuple

_FOLDERS = "paths.runs (SSL_RUNS), paths.cache (SSL_CACHE)"
DEBUG = "Add debug=true to the command for the traceback."
_SHARED_MEMORY = (
    "The shared memory of worker processes, /dev/shm, is full. Give it more (docker run --shm-size=8g, or "
    "mount -o remount,size=8g /dev/shm), or decode without workers: dataset.workers=0."
)
_GPU_MEMORY = "The memory of the GPU is full. Lower batch_size, or choose trainer.precision=bf16-mixed."
_MEMORY = "Lower batch_size or dataset.workers, or keep images in their files: dataset.storage=streamed."
_NO_GPU = "Check what `nvidia-smi` lists, or choose trainer=cpu."
_DAMAGED = f"A file of weights or arrays is damaged or cut off. Delete it, or fetch it again. {DEBUG}"
_PEERS = "The processes of this run do not reach each other"


class Known(NamedTuple):
    """An error that has a remedy.

    Args:
        kinds: names of its class or of one above, separated by |.
        holds: a regular expression for its text.
        line: what to say; {names} are those of groups in `holds`.
    """

    kinds: str
    holds: str
    line: str


KNOWN = (
    # Memory
    Known("OutOfMemoryError|RuntimeError", "CUDA (error: )?out of memory", _GPU_MEMORY),
    Known("RuntimeError", "CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED", _GPU_MEMORY),
    Known("RuntimeError", "MPS backend out of memory", _GPU_MEMORY),
    Known(
        "RuntimeError",
        r"</torch_|shared memory object|shared memory\(shm\)|insufficient shm|out of shared memory|unable to mmap",
        _SHARED_MEMORY,
    ),
    Known(
        "RuntimeError",
        r"DefaultCPUAllocator.*allocate (?P<bytes>\d+) bytes",
        f"The memory is full: a tensor of {{bytes}} bytes did not fit. {_MEMORY}",
    ),
    Known("MemoryError", "", f"The memory is full. {_MEMORY}"),
    Known(
        "RuntimeError|BrokenProcessPool",
        "DataLoader worker .* (killed by signal|exited unexpectedly)|A process in the process pool was terminated",
        f"A process that decodes images was killed, most often because the memory is full. {_MEMORY}",
    ),
    # Devices
    Known(
        "RuntimeError|MisconfigurationException|AssertionError",
        "No CUDA GPUs are available|No supported gpu backend|no NVIDIA driver|not compiled with CUDA|"
        "Accelerator` can not run on your system|driver.* is too old|driver version is insufficient",
        f"There is no such device here: trainer.accelerator asks for one. {_NO_GPU}",
    ),
    Known(
        "MisconfigurationException|RuntimeError",
        "requested gpu: .*But your machine only has|invalid device ordinal",
        f"trainer.devices asks for a GPU that is not here. {_NO_GPU}",
    ),
    Known(
        "RuntimeError",
        "no kernel image is available",
        "This build of torch has nothing for this GPU. Install the build for it (pytorch.org), or choose trainer=cpu.",
    ),
    Known(
        "RuntimeError",
        "(?P<what>(CUDA|CUBLAS|cuDNN|NCCL|HIP) error: [^\n]*)",
        f"{{what}}. Set CUDA_LAUNCH_BLOCKING=1 to see where it happens. {DEBUG}",
    ),
    Known(
        "ValueError",
        "invalid accelerator name: `accelerator='(?P<name>.*?)'",
        "trainer.accelerator is '{name}', which Lightning does not know. Write auto, cpu, gpu or mps.",
    ),
    Known(
        "MisconfigurationException",
        r"Trainer\(devices=(?P<value>.*?)\)",
        "trainer.devices is {value}, which is no number of devices. Give 1 or more, or auto.",
    ),
    Known(
        "TypeError",
        "`devices` selected with `CPUAccelerator`",
        "trainer.devices must be a number of processes, of at least 1, where trainer.accelerator is cpu.",
    ),
    Known(
        "RuntimeError",
        "InvalidCxxCompiler|No working C\\+\\+ compiler|TritonMissing|Cannot find a working triton",
        "compile needs a C++ compiler (Debian: g++) and, on GPUs, triton, which torch's builds for them bring along. "
        "Install it, or choose compile=null.",
    ),
    Known(
        "BackendCompilerFailed|InductorError",
        "C\\+\\+ compile error.*Output:\\s*(?P<what>[^\n]*)",
        "The C++ compiler says: {what}. Mend that (Debian: g++ and python3-dev), or choose compile=null.",
    ),
    Known(
        "BackendCompilerFailed|InductorError",
        "(backend='\\w+' raised:\\s*)?(?P<what>[^\n]*)",
        f"torch.compile failed: {{what}}. Choose compile=null, or another mode. {DEBUG}",
    ),
    # Processes that work together
    Known(
        "DistNetworkError|RuntimeError",
        "EADDRINUSE|[Aa]ddress already in use",
        "The port by which processes meet is taken. Choose another: MASTER_PORT=29501 before the command.",
    ),
    Known(
        "DistNetworkError|DistStoreError|RuntimeError",
        "client socket has timed out.*connect to (?P<where>\\(.*?\\))",
        f"{_PEERS} at {{where}}. Are all started, with the same MASTER_ADDR and MASTER_PORT?",
    ),
    Known(
        "DistError|DistBackendError|RuntimeError",
        "Connection (closed|reset) by peer|Broken pipe|[Ww]atchdog caught|Timed out waiting|"
        "Application timeout|remote process exited",
        f"{_PEERS} any more: another has ended. Look for its error above, or in its log.",
    ),
    Known(
        "RuntimeError",
        "Gloo connectFullMesh failed",
        f"{_PEERS}. If torchrun has started them again after a failure, they look for the former ones: set "
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for it. Otherwise, look at the network between them.",
    ),
    # Checkpoints and other files
    Known(
        "RuntimeError",
        r"unexpected pos \d+|PytorchStreamWriter failed|iostream error",
        "A file could not be written, most often because the disk is full. Free some space, or choose another folder: "
        "paths.runs (SSL_RUNS), paths.cache (SSL_CACHE).",
    ),
    Known("RuntimeError|UnpicklingError", "PytorchStreamReader failed|pickle data was truncated", _DAMAGED),
    Known("EOFError", "", _DAMAGED),
    Known(
        "UnpicklingError",
        "Weights only load failed",
        "A file holds more than weights, or no weights at all: nothing in it was executed. Give a file that "
        "torch.load(..., weights_only=True) reads.",
    ),
    Known(
        "RuntimeError",
        r"loading state_dict for (?P<name>\w+):\s*(?P<first>[^\n]*)",
        "The weights are those of another network than {name}: {first} Give the settings of the network that they were "
        "saved from.",
    ),
    Known(
        "ValidationError",
        "for Settings\n(?P<setting>\\w+)\n +(?P<what>.*?) \\[type=.*?, input_value=(?P<value>.*?), input_type=",
        "wandb's setting {setting} is {value}: {what}. Mend it where it is written: a variable WANDB_..., a settings "
        "file of wandb's, or logger.wandb.",
    ),
    Known("UsageError", "(?P<what>[^\n]*)", "wandb refuses a setting of logger.wandb: {what}. Choose another."),
    # Callbacks of Lightning's
    Known(
        "RuntimeError",
        "Early stopping conditioned on metric `(?P<name>.*?)` which is not available.*following: (?P<known>`.*`)",
        "EarlyStopping watches '{name}', which is not among what is logged: {known}. Choose one of these as its "
        "monitor, or log {name} in a method of your own.",
    ),
    # Code that is missing, or cannot travel
    Known(
        "ImportError",
        r"No module named '(?P<name>timm|tensorboard)\b",
        "{name} is not installed: pip install 'ssl-lightning[{name}]'.",
    ),
    Known(
        "ImportError",
        r"No module named '(?P<name>[^']+)'",
        "{name} is not installed, or not found. Install it; a module of your own is found in its folder with "
        "PYTHONPATH=<folder> before the command.",
    ),
    Known(
        "ImportError",
        "(?P<reason>cannot import name .*|Requirement .* not met.*|[^\n]*)",
        "A module cannot be imported: {reason}. Install the version that is asked for.",
    ),
    Known(
        "AttributeError|TypeError|PicklingError",
        "(?P<what>([Cc]an't|cannot) pickle [^\n]*)",
        "{what}, which is to go to another process. Define classes and functions at the top of a module, not inside "
        "functions, and make open files and locks where they are used.",
    ),
    # Text
    Known(
        "MarkedYAMLError",
        '.*?(?P<problem>[^\n]+)\n\\s+in "(?P<file>[^"\n]+)", line (?P<line>\\d+)[^"]*$',
        "{file}:{line} is no valid YAML: {problem}. Mend that line.",
    ),
    Known(
        "UnicodeDecodeError",
        "(?P<what>'.*' codec can't decode .*)",
        "A file is not UTF-8 text: {what}. Save it as UTF-8.",
    ),
    Known(
        "UnicodeEncodeError",
        "(?P<what>'.*' codec can't encode .*)",
        "A name has letters that cannot be written: {what}. Rename it, or set PYTHONUTF8=1.",
    ),
    Known(
        "RecursionError",
        "",
        "Something is nested without end, such as a config or a module that holds itself.",
    ),
)

REMEDIES = {
    errno.ENOSPC: f"Free some space on that disk, or choose another folder: {_FOLDERS}",
    errno.EDQUOT: f"Your quota is used up: delete something, or choose another folder: {_FOLDERS}",
    errno.EFBIG: "A limit on the size of files (ulimit -f, or the file system's) is in the way: raise it",
    errno.EROFS: f"Choose a folder that can be written: {_FOLDERS}",
    errno.EACCES: f"Ask for the permission, or choose another folder: {_FOLDERS}",
    errno.EPERM: f"Ask for the permission, or choose another folder: {_FOLDERS}",
    errno.ENOENT: "Check the path, relative to the working directory, and the setting that names it",
    errno.ENOTDIR: "A part of the path is a file: choose another folder",
    errno.EISDIR: "It is a folder: give a file",
    errno.EEXIST: "It is in the way: remove it, or choose another folder",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Links lead in a circle there: mend them",
    errno.EMFILE: "Raise the limit, `ulimit -n 4096`, or lower dataset.workers",
    errno.ENFILE: "The machine has no more: close other programs, or lower dataset.workers",
    errno.ENOLCK: f"That file system has no locks: choose a folder on another one: {_FOLDERS}",
    errno.EIO: "The disk or the network in between is faulty: try again, or choose another folder",
    errno.ESTALE: "The network folder was exchanged meanwhile: try again",
    errno.ENOMEM: "The memory is full: lower batch_size or dataset.workers",
    errno.EAGAIN: "There are too many processes (`ulimit -u`): lower dataset.workers or hydra.launcher.slots",
    errno.EADDRINUSE: "Choose another port: MASTER_PORT=29501 before the command",
    errno.ECONNREFUSED: "Is there a network, and is the other side running?",
    errno.ETIMEDOUT: "Is there a network, and is the other side running?",
    errno.EHOSTUNREACH: "Is there a network?",
    errno.ENETUNREACH: "Is there a network?",
}
"""What to do against errors of the operating system."""
