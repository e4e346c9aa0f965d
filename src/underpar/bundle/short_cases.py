"""Source text for the packed file: what holds for some recipes only.

See ``shortcuts``, which knows for which.
"""

from __future__ import annotations

#: Text comes as shards of a SentencePiece tokenizer's ids.
SHARDS = """
def prepare(recipe, out, data, tokenizer):
    return open_dataset(data, tokenizer)

def open_dataset(folder, tokenizer_path=None):
    train_files, val_files = shard_files(folder, "train"), shard_files(folder, "val")
    tokenizer = load_tokenizer(tokenizer_path or _find_tokenizer(folder))
    return Dataset(folder, train_files, val_files, tokenizer)

class Dataset:
    def __init__(self, folder, train_files, val_files, tokenizer):
        self.train_files, self.tokenizer = train_files, tokenizer
        self._validation = ValidationSet(val_files, tokenizer)
    def validation(self):
        return self._validation

class ValidationSet:
    def __init__(self, files, tokenizer):
        self.tokens = tokens = np.concatenate([read_shard(path) for path in files])
        self.byte_lengths = lengths = tokenizer.byte_lengths(tokens)
        self.n_targets = len(lengths)
        starts = [*np.flatnonzero(tokens == tokenizer.bos_id), len(tokens)]
        for start, end in pairwise(starts):
            text = tokenizer.decode(tokens[start:end])
            if starts[0] or len(text.encode()) != lengths[start : end - 1].sum():
                raise DataError(f"bytes of validation document at {start}")

def _find_tokenizer(folder):
    own = folder / "tokenizer.model"
    others = folder.resolve().parents[1].glob("tokenizers/*VOCAB*.model")
    return own if own.exists() else min(others)

def load_tokenizer(source):
    return SentencePieceTokenizer(source.read_bytes())

def read_shard(path):
    head = np.fromfile(path, "<i4", 256)
    count = head[2]
    if [*head[:2]] != [20240520, 1] or path.stat().st_size != 1024 + 2 * count:
        raise DataError(f"shard {path}")
    return np.memmap(path, dtype="<u2", mode="r", offset=1024, shape=(count,))

class SentencePieceTokenizer:
    kind = "sentencepiece"
    def __init__(self, model, name=""):
        self._model, sp = model, spm.SentencePieceProcessor(model_proto=model)
        self._sp, self.bos_id, n = sp, sp.bos_id(), len(sp)
        spec = next((v for n, v in _fields(model) if n == 3 and isinstance(v, bytes)), b"")
        found = dict(_fields(spec))
        self._base, self._lead, self._boundary = np.zeros((3, n), np.int32)
        for i in range(n):
            if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
                self._boundary[i] = found.get(3, 1) or found.get(4, 1)
            elif sp.is_byte(i):
                self._base[i] = 1
            else:
                piece = sp.id_to_piece(i)
                self._lead[i] = piece.startswith(SPACE)
                self._base[i] = len(piece.removeprefix(SPACE).replace(SPACE, " ").encode())
    def byte_lengths(self, tokens):
        targets = tokens[1:]
        return self._base[targets] + (self._lead[targets] & ~self._boundary[tokens[:-1]])
    def decode(self, ids):
        return self._sp.decode(ids.tolist())
    def to_bytes(self):
        return self._model
"""

#: Windows of more than 512 tokens, and nothing is decoded step by step.
LONG = """
def attend(q, k, v):
    groups = q.shape[1] // k.shape[1]
    native = q.is_cuda and q.dtype != torch.float32
    if not native:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    with _kernels(q.device):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=native)
"""

#: Number format and compiler are left to us: what GPUs run in, and on a CPU what always works.
AUTO = """
def choose(model, spec, batch, micro_steps, recorded=None):
    gpu = batch[0].is_cuda
    model.compute_dtype = torch.bfloat16 if gpu else torch.float32
    loss = eager_loss(model)
    return Compute(model.compute_dtype, gpu, torch.compile(loss, dynamic=False) if gpu else loss)

@contextmanager
def numerics(spec, device):
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")
"""

#: Nothing is trained in fake quantization.
NO_QAT = """
class WeightHooks:
    def __init__(self, model, install):
        pass
    def on(self):
        pass
    def off(self):
        pass

class _loop_Run(...):
    def _latch_qat(self, multiplier):
        pass
"""

#: No parameter is frozen at test time.
NO_FREEZE = """
class Adapter(...):
    def __init__(self, model: GPT, spec: ScoreSpec):
        self._model, self._context, self._spec, self.steps = model, spec.context, spec, 0
        self._parameters = list(model.parameters())
        self._optimizer = _optimizer(self._parameters, spec)
"""

#: Every row's scale follows its deviation.
STD = """
def row_scales(w, grid, clip, k=0.0):
    return scale_std(w, grid, k)
"""

#: Weights are coded as bytes, like everything else.
BYTES = """
def layout_decode(entries, codings, sections):
    streams = {name: io.BytesIO(decode_bytes(codings[name], sections[name])) for name in codings}
    def take(section, shape, dtype):
        data = streams[section].read(math.prod(shape) * dtype.itemsize)
        return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)
    tensors = {}
    for e in entries:
        if e.kind in BITS:
            codes = take("codes", e.shape, torch.int8)
            scales = take("scales", e.shape[:1], torch.float16)
            tensors[e.path] = QuantizedTensor(codes, scales, BITS[e.kind])
        else:
            tensors[e.path] = take(e.kind, e.shape, FLOATS[e.kind])
    return tensors
"""

#: The recipe's compressor; PACK and UNPACK are calls of its package.
CODEC = """
def compress(name, data):
    return PACK

def decompress(name, data, size):
    return data if name == "raw" else UNPACK
"""
