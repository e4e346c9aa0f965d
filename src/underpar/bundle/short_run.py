"""Source text for the packed file: the frame, the artifact and the training loop, unchecked.

See ``shortcuts``: these hold for every recipe.
"""

from __future__ import annotations

RUN = """
from types import SimpleNamespace

def replace(value, **changes):
    return type(value)(**vars(value) | changes)

class UnderparError(Exception):
    pass

class Progress:
    def __init__(self, folder=None, *, quiet=False, stream=None):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self.quiet, self.file = quiet, folder and open(folder / "log.txt", "a")
    def line(self, text=""):
        if not self.quiet:
            print(text, flush=True)
        if self.file:
            print(text, file=self.file, flush=True)

@contextmanager
def processes():
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(dist_device())
        backend, device = ("nccl", dist_device()) if gpu else ("gloo", None)
        torch_dist.init_process_group(backend, device_id=device)
    yield

@contextmanager
def use(progress):
    global _current
    _current = progress
    yield

@contextmanager
def replacing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        yield handle

def digest(recipe):
    return hashlib.sha256(canonical_json(recipe.all)).hexdigest()

def from_json(data):
    sections = {k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in data.items()}
    return SimpleNamespace(all=data, **sections)

def section_to_json(spec: object) -> dict:
    return vars(spec)

def check_tokenizer(tokenizer, validation):
    pass

def parse_container(data, path):
    start = 16 + struct.unpack_from("<4sIII", data)[2]
    header, sections = json.loads(zlib.decompress(data[16:start])), {}
    for name, size, _ in header.pop("sections"):
        sections[name] = data[start : start + size]
        start += size
    return header, sections

def _tables(header, sections, file_bytes):
    rows, coded = header["tensors"], header["codings"]
    entries = [Entry(path, tuple(shape), kind) for path, shape, kind in rows]
    return entries, {name: Coding(*row) for name, row in coded.items()}

def fitted(model, recipe: Recipe, dataset, path, code, method):
    spec = recipe.quant
    for tries_left in (2, 1, 0):
        weights = quantize_quantize(model, spec, calibration(recipe, dataset))
        _pack(path, weights, model, recipe, dataset, spec.compressor)
        header, sections = parse_container(path.read_bytes(), path)
        size, total = path.stat().st_size, path.stat().st_size + code
        if not recipe.budget.count_tokenizer:
            total -= len(sections.get("tokenizer", b""))
        over = total - recipe.budget.bytes
        if over <= 0:
            return 0, SimpleNamespace(file_bytes=size, total=total)
        factor = 1.01 * 2 ** (8 * over / header["codings"]["codes"][1])
        if factor > 1.25 or spec.clip != "std":
            break
        spec = replace(
            spec,
            matrix_k=spec.matrix_k * factor,
            mlp_k=spec.mlp_k * factor,
            embed_k=spec.embed_k * factor,
        )
    raise BudgetError(f"{over} bytes over the budget")

def train(
    model: GPT,
    spec: TrainSpec,
    loader_factory,
    *,
    seed,
    qat=None,
    validate=None,
    checkpoint=None,
    resume=False,
    on_step=None,
):
    model.train()
    with numerics(spec, dist_device()):
        hooks = WeightHooks(model, qat if spec.qat_below else None)
        state, stepper = _prepare(model, spec, loader_factory, hooks, None)
        run = _loop_Run(spec, state, stepper, hooks, None, None, validate, None)
        reason = run.steps(None)
        hooks.off()
        run.finish(reason)
    c = state.counters
    return SimpleNamespace(
        steps=c.step, seconds=c.elapsed, losses=c.losses, stop_reason=reason
    )

def _prepare(model: GPT, spec: TrainSpec, loader_factory, hooks, saved):
    loader = loader_factory()
    batch = to_device(loader.next_batch(), dist_device())
    chosen = choose(model, spec, batch, micro_steps(spec, world_size()), None)
    warm_up(model, spec, chosen, loader, hooks)
    optimizers = Optimizers(model, spec, dtype=chosen.dtype)
    average = make_average(spec, model)
    state = state_State(model, optimizers, average, loader_factory(), Counters())
    return state, Stepper(model, spec, chosen.loss, optimizers)

class _loop_Run(...):
    def finish(self, reason):
        state = self.state
        if state.average is not None:
            state.average.apply(state.model)
        prune(state.model, self.spec.prune)
        if self.spec.val_every:
            self._validate()
        state.model.eval()
    def _step(self, wish):
        spec, c, state = self.spec, self.state.counters, self.state
        self._latch_loops()
        multiplier = schedule_multiplier(spec, c.step, c.elapsed)
        momentum = muon_momentum(
            c.step,
            start=spec.muon_momentum_start,
            final=spec.muon_momentum,
            warmup=spec.muon_momentum_warmup,
        )
        share = self.stepper(state.loader, multiplier, momentum)
        c.step += 1
        if state.average is not None:
            state.average.update(state.model, c.step, multiplier)
        elapsed = self.clock.elapsed if is_main() else 0.0
        loss, c.elapsed = agree([share, elapsed], dist_device())
        if not math.isfinite(loss):
            raise TrainingError(f"training loss at step {c.step}")
        c.losses.append(loss)
        self._latch_qat(multiplier)
        report_step(spec, c, loss, multiplier)
        with self.clock.paused():
            if spec.val_every and c.step % spec.val_every == 0:
                self._validate()

def report_step(spec: TrainSpec, c: Counters, loss, multiplier):
    if c.step <= 10 or c.step % spec.log_every == 0:
        current().line(
            f"step:{c.step}/{spec.iterations} train_loss:{loss:.4f} "
            f"train_time:{1000 * c.elapsed:.0f}ms step_avg:{1000 * c.elapsed / c.step:.2f}ms "
            f"lr_scale:{multiplier:.4f} tok/s:{c.step * spec.batch_tokens / c.elapsed:.0f}"
        )
"""
