"""`state_hash`: one line that says whether two runs stand at the same point, bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from foreworld.core.errors import CheckpointError
from foreworld.core.files import MANIFEST, read_json, read_manifest, sha256
from foreworld.core.tensorfile import read_tensors
from foreworld.data.shard import shards_from
from foreworld.train.checkpoint import STATE, newest_checkpoint, verify_checkpoint
from foreworld.train.run import CHECKPOINTS, REPLAY

REPLAY_FILE = "replay.safetensors"


def state_hash(run: str | Path) -> str:
    """Hash all state of a run's newest checkpoint: everything that decides how the run goes on.

    That is model, optimiser, random numbers and counts, and of an agent's run also actor and critic, replay, and where
    the environments stand. Left out is the time that was taken, and which parts of the replay are still on disk
    for earlier checkpoints.

    Args:
        run: folder of the run.

    Returns:
        64 hexadecimal digits.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
        DataError: the replay is damaged.

    Example:
        >>> import tempfile, torch, foreworld as fw
        >>> from foreworld.envs import make
        >>> from foreworld.train import state_hash
        >>> def train(out, **options):
        ...     env = make("CartPole-v1")
        ...     _ = torch.manual_seed(0)
        ...     model = fw.RSSM(env.spec, deter=16, units=8, latents=2)
        ...     options |= {"prefill": 8, "batch": 2, "length": 4, "train_ratio": 2, "out": out}
        ...     fw.train_agent("CartPole-v1", model, fw.Dreamer(model, units=8, horizon=2), **options)
        ...     return state_hash(out)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     whole, first = train(f"{folder}/whole", steps=20), train(f"{folder}/parts", steps=13)
        ...     both = train(f"{folder}/parts", steps=20, resume=True)
        >>> first == whole, both == whole
        (False, True)
    """
    folder = Path(run)
    checkpoint = newest_checkpoint(folder / CHECKPOINTS)
    verify_checkpoint(checkpoint)
    found = {name: entry["sha256"] for name, entry in read_manifest(checkpoint, CheckpointError).items()}
    state = read_json(checkpoint / STATE, CheckpointError)
    found[STATE] = _hash(json.dumps({**state, "seconds": None}, sort_keys=True).encode())
    if REPLAY_FILE in found:
        found |= _replay(checkpoint / REPLAY_FILE, folder / REPLAY)
    return _hash(json.dumps(found, sort_keys=True).encode())


def _replay(file: Path, store: Path) -> dict[str, str]:
    """Hash the state of a replay without its list of earlier states, and the shards that it reads from."""
    tensors = read_tensors(file, lambda forms: None)
    _, evicted, sealed, shards = tensors["counts"].tolist()
    del tensors["saves"]
    parts = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    digest = hashlib.sha256("\n".join(sorted(parts)).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().data)
    used = shards_from(store, evicted, shards) if evicted < sealed else []
    return {file.name: digest.hexdigest()} | {f"shard {path.name}": sha256(path / MANIFEST) for path in used}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
