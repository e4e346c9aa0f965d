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

def QuantizedModel(tensors, errors):
    return tensors

class EMA:
    def __init__(self, model, *, decay, debias=True):
        self.count, self.decay, self.debias = 0, decay, debias
        self.tensors = [p.detach().float().clone() for p in model.parameters()]
        if debias:
            torch._foreach_zero_(self.tensors)
    def update(self, model, step, multiplier):
        torch._foreach_mul_(self.tensors, self.decay)
        torch._foreach_add_(self.tensors, _float32(model), alpha=1.0 - self.decay)
        self.count += 1
    @torch.no_grad()
    def apply(self, model):
        scale = 1.0 / (1.0 - self.decay**self.count) if self.debias else 1.0
        for parameter, tensor in zip(model.parameters(), self.tensors):
            parameter.copy_(tensor * scale)

@torch.no_grad()
def hessians(model, batches, paths, total=0):
    moments, done = _Moments(), 0
    handles = _watch(model, moments, paths)
    model.eval()
    for ids in batches:
        model(ids)
        done += 1
    for handle in handles:
        handle.remove()
    return moments.finish(done)

def _watch(model: GPT, moments, paths):
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, path=f"{name}.weight": moments.see(path, args[0])
        )
        for name, module in model.named_modules()
        if isinstance(module, Linear) and f"{name}.weight" in paths
    ]
    if model.spec.tied:
        hook = lambda _, args, out: moments.see(TABLE, out)
        handles.append(model.final_norm.register_forward_hook(hook))
    return handles

def unshuffle(data, stride=2):
    planes = np.frombuffer(data, np.uint8, offset=5)
    plain, start = np.empty_like(planes), 0
    for lane in range(stride):
        lanes = plain[lane::stride]
        lanes[:] = planes[start : start + len(lanes)]
        start += len(lanes)
    return plain.tobytes()

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

def newton_schulz(x, steps, dtype):
    a, b, c = COEFFICIENTS
    y = x.to(dtype)
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + NORM_EPS)
    tall = x.shape[-2] > x.shape[-1]
    y = (y.mT if tall else y).contiguous()
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, c * gram, gram, beta=b), y, beta=a)
    return y.mT if tall else y

class GPT(...):
    def forward(self, ids, *, cache=None, logits_for=None):
        encoder, decoder = self.orders[self.looping]
        tables = rotation(self.spec, 0, ids.shape[1], ids.device, self.compute_dtype)
        x = x0 = self.embed(ids, None)
        skips = []
        for layer in encoder:
            x = self.blocks[layer](x, x0, self.core(layer), tables)
            skips.append(x)
        for step, layer in enumerate(decoder):
            if skips:
                x = self.join(x, skips.pop(), step)
            x = self.blocks[layer](x, x0, self.core(layer), tables)
        return self.head(x if logits_for is None else x[:, logits_for])

class Block(...):
    def forward(self, x, x0, core, tables):
        x = blend(x, self.resid_mix[0], x0, self.resid_mix[1])
        x = x + scaled(core.attn(self._normed(x), tables), self.attn_scale)
        return x + scaled(core.mlp(self._normed(x)), self.mlp_scale)

class Attention(...):
    def forward(self, x, tables):
        q = _heads(self.c_q(x), self.n_head)
        k, v = _heads(self.c_k(x), self.n_kv_head), _heads(self.c_v(x), self.n_kv_head)
        q = rotate(rms_norm(q, self.eps), tables) * self.q_gain.to(x.dtype)[:, None, None]
        y = attend(q, rotate(rms_norm(k, self.eps), tables), v)
        if self.xsa:
            y = without_own_value(y, v)
        return self.proj(y.transpose(1, 2).reshape(x.shape))
"""
