"""A Llama with random weights as a GGUF file, so that a real engine has a model without a download.

Its text means nothing, but each token costs as much as one of a trained model of this size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faro_lib.files import atomic_write

SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = 256  # the tokenizer needs a token for each byte
WORDS = 253
FIRST_WORD = len(SPECIAL) + BYTES  # index of the first word's token
STANDARD_DEVIATION = 0.05  # of a weight


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a Llama; `width` is a multiple of `heads`."""

    layers: int = 8
    width: int = 256
    feed_forward: int = 704
    heads: int = 4
    context: int = 4096  # longest sequence in tokens

    @property
    def tokens(self) -> int:
        """Size of the vocabulary."""
        return FIRST_WORD + WORDS


def write_model(path: Path, size: Size | None = None, seed: int = 0) -> None:
    """Write the model. ValueError if the package gguf is not installed (the extra `llm`).

    The weights that lead to tokens of single bytes are 0, so a greedy engine never generates one: a
    byte that is no complete character would be held back, and two tokens would arrive at once.
    """
    try:
        import gguf
    except ImportError:
        raise ValueError("the engine needs gguf: pip install 'faro_lib[llm]'") from None
    size = size or Size()
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (STANDARD_DEVIATION * rng.standard_normal(shape)).astype(np.float32)

    output = weights(size.tokens, size.width)
    output[:FIRST_WORD] = 0.0
    tensors = {"token_embd.weight": weights(size.tokens, size.width), "output.weight": output}
    tensors["output_norm.weight"] = np.ones(size.width, np.float32)
    for layer in range(size.layers):
        block = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"{block}.{name}.weight"] = np.ones(size.width, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}.{name}.weight"] = weights(size.width, size.width)
        for name in ("ffn_gate", "ffn_up"):
            tensors[f"{block}.{name}.weight"] = weights(size.feed_forward, size.width)
        tensors[f"{block}.ffn_down.weight"] = weights(size.width, size.feed_forward)

    with atomic_write(path) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        _add_header(writer, size)
        for name, values in tensors.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_header(writer, size: Size) -> None:
    """The sizes and the vocabulary."""
    from gguf import TokenType

    writer.add_name("random weights")
    writer.add_context_length(size.context)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.feed_forward)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_rope_dimension_count(size.width // size.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)  # 32-bit floating point

    words = [f"word{n} " for n in range(WORDS)]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(BYTES)), *words]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * BYTES + [TokenType.NORMAL] * WORDS
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
