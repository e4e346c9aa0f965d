"""Source text for the packed file: model, calibration, averaging and scoring, unchecked.

See ``shortcuts``: these hold for every recipe.
"""

from __future__ import annotations

MODEL = """
def _load(header, sections, file_bytes, sha256, device):
    entries, codings = _tables(header, sections, file_bytes)
    codings.pop("tokenizer", 0)
    model = GPT(SimpleNamespace(**header["model"]))
    model.compute_dtype, model.looping = DTYPES[header["dtype"]], header["looping"]
    stored = layout_decode(entries, codings, sections)
    model.load_state_dict({path: _dense(tensor) for path, tensor in stored.items()})
    return SimpleNamespace(
        model=model.to(device), score=SimpleNamespace(**header["score"]), tokenizer=0
    )

def quantize_quantize(model: GPT, spec: QuantSpec, batches=None):
    treatments = policy(model, spec)
    wanted = {path for path, treatment in treatments.items() if treatment.hessian}
    moments = hessians(model, batches, wanted) if wanted else {}
    tensors = {}
    for path, parameter in model.named_parameters():
        weight = parameter.detach().float()
        if not weight.isfinite().all():
            raise TrainingError(f"quantizing {path}")
        tensors[path] = _store(path, weight, treatments[path], moments, spec)
    return tensors

def _walk(model):
    for path, weight in model.named_parameters():
        yield path, weight, weight.role

def score_model(
    model: GPT, spec: ScoreSpec, validation: ValidationSet, stage, *, limit=0, lanes=1
):
    spec = replace(spec, context=spec.context or model.spec.seq_len)
    clock, dtype = Clock(), model.compute_dtype
    model.eval()
    if spec.dtype != "auto":
        model.compute_dtype = DTYPES[spec.dtype]
    tokens, n, adapter = validation.tokens, validation.n_targets, None
    ledger = Ledger(tokens, validation.byte_lengths, model.spec.vocab_size)
    size, plan = n, WindowPlan(n, spec.context, spec.context if stage == "plain" else spec.stride)
    if stage == "ttt":
        size, adapter = spec.ttt_chunk, Adapter(model, spec)
    for chunk in plan.chunks(size):
        first, end = share(len(chunk.windows))
        most = max(MAX_LOGITS // model.spec.vocab_size, 1)
        for batch in batches(chunk.windows[first:end], spec.window_batch, most):
            start, first, end = batch[0]
            ids = torch.zeros(len(batch), spec.context, dtype=torch.int64)
            for row, window in zip(ids, batch):
                row[: end - start] = torch.from_numpy(
                    tokens[window.start : window.end].astype("int64")
                )
            with torch.no_grad():
                logits = model(
                    ids.to(dist_device()), logits_for=slice(first - start, end - start)
                )
            ledger.commit([window[1:] for window in batch], logits.flatten(0, 1))
        scored = ledger.close_chunk(chunk.start, chunk.end)
        if adapter:
            adapter.update([scored], chunk.index, plan.n_chunks(size))
    model.compute_dtype = dtype
    return SimpleNamespace(score=ledger.score(clock.seconds))

class WindowPlan:
    def __init__(self, n_positions, context, stride):
        self.n_positions, self.context, self.stride = n_positions, context, stride
    def n_chunks(self, chunk_size):
        return -(-self.n_positions // chunk_size)
    def chunks(self, chunk_size):
        n, context, stride = self.n_positions, self.context, self.stride
        for index in range(self.n_chunks(chunk_size)):
            start = index * chunk_size
            end = min(start + chunk_size, n)
            windows = [
                Window(i, i + context - stride if i else 0, min(i + context, n))
                for i in range(self._before(start) * stride, self._before(end) * stride, stride)
            ]
            if windows:
                yield Chunk(index, start, end, windows)
    def _before(self, position):
        later = -(-max(position - self.context, 0) // self.stride)
        return later + 1 if position > 0 else 0
"""
