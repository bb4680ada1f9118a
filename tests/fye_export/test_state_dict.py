import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fye_export import random_checkpoint
from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS
from tests.fye_export import checkpoint_files
from tests.fye_export.checkpoint_files import CLIP, FILES, GUIDER, UNET, assert_same_weights, change, refusal, write


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_all_file_formats_give_the_same_weights(suffix: str, folder: Path, tiny_checkpoint: Path) -> None:
    for file in FILES.values():
        old = folder / file
        new = old.with_name("pytorch_model.bin") if file == CLIP and suffix == ".bin" else old.with_suffix(suffix)
        state = checkpoint_files.read(old)
        old.unlink()
        write(new, state)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_the_pickle_format_before_zip_files_is_read(folder: Path, tiny_checkpoint: Path) -> None:
    torch.save(checkpoint_files.read(folder / UNET), folder / UNET, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(folder / UNET)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_float32_and_float16_files_of_the_same_values_load_equal(tmp_path: Path, tiny_checkpoint: Path) -> None:
    random_checkpoint.write(tmp_path / "fp32", checkpoint_files.TINY, dtype=torch.float32)
    wide = Checkpoint.open(tmp_path / "fp32")
    assert {tensor.dtype for name in NETWORKS for tensor in wide.tensors(name).values()} == {torch.float32}
    assert_same_weights(wide, Checkpoint.open(tiny_checkpoint))


def test_bfloat16_is_accepted(folder: Path) -> None:
    for file in (UNET, CLIP):
        change(folder / file, lambda state: {key: value.bfloat16() for key, value in state.items()})
    checkpoint = Checkpoint.open(folder)
    checkpoint.check()
    assert checkpoint.load("unet").get_parameter("conv_in.weight").dtype == torch.float32


@pytest.mark.parametrize("convolutions", [False, True])
def test_the_vaes_old_attention_names_are_understood(convolutions: bool, folder: Path, tiny_checkpoint: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(state: checkpoint_files.State) -> checkpoint_files.State:
        aged = {}
        for key, value in state.items():
            if match := re.search(r"attentions\.0\.(to_q|to_k|to_v|to_out\.0)\.", key):
                key = key.replace(match[1], old[match[1]])
                if convolutions and value.ndim == 2:
                    value = value[:, :, None, None].contiguous()
            aged[key] = value
        assert len(aged.keys() - state.keys()) == 16
        return aged

    change(folder / checkpoint_files.VAE, age)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_position_ids_are_ignored(folder: Path, tiny_checkpoint: Path) -> None:
    ids = torch.arange(checkpoint_files.TINY.image_encoder.tokens)[None]
    change(folder / CLIP, lambda state: state.update({"vision_model.embeddings.position_ids": ids}))
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_wrappings_of_training_frameworks_are_removed(
    wrap: Callable[[checkpoint_files.State], Any], folder: Path, tiny_checkpoint: Path
) -> None:
    change(folder / UNET, wrap)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


@pytest.mark.parametrize("file", FILES.values())
@pytest.mark.parametrize("content", ["half", "empty", "text"])
def test_a_damaged_weight_file_is_named(content: str, file: str, folder: Path) -> None:
    whole = (folder / file).read_bytes()
    contents = {"half": whole[: len(whole) // 2], "empty": b"", "text": b"<html>Not Found</html>"}
    (folder / file).write_bytes(contents[content])
    refusal(folder, file)


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_not_run(zipped: bool, folder: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = {**checkpoint_files.read(folder / GUIDER), "x": Malicious(tmp_path / "ran")}
    torch.save(state, folder / GUIDER, _use_new_zipfile_serialization=zipped)
    message = refusal(folder, GUIDER, "mkdir", "only tensors")
    assert "weights_only" not in message  # torch's own message advises to unpickle everything
    assert not (tmp_path / "ran").exists()
    torch.load(folder / GUIDER, weights_only=False)  # it does run where nothing stops it
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {1: torch.zeros(1)}, {"state_dict": {}}, torch.zeros(3)],
    ids=["list", "empty", "number as key", "empty state_dict", "tensor"],
)
def test_a_file_that_is_no_dictionary_of_tensors_is_named(content: Any, folder: Path) -> None:
    write(folder / GUIDER, content)
    refusal(folder, GUIDER, "dictionary")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "int"),
        (torch.zeros(8, dtype=torch.int64), "int64"),
        (torch.zeros(8, dtype=torch.float64), "float64"),
        (torch.eye(8).to_sparse(), "sparse"),
        (torch.zeros(8, device="meta"), "meta"),
        (torch.zeros(1).expand(1 << 40), "more than the file holds"),
    ],
    ids=["number", "int64", "float64", "sparse", "meta", "expanded"],
)
def test_an_entry_that_is_no_plain_float_tensor_is_named(value: Any, said: str, folder: Path) -> None:
    change(folder / GUIDER, lambda state: state.update({"conv_in.bias": value}))
    refusal(folder, GUIDER, "conv_in.bias", said)
