"""A small training script in the style of the competition, for eight GPUs; only tests run it."""

import glob
import math
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.distributed as dist
import torch.nn.functional as F
import triton
import triton.language as tl
from flash_attn_interface import flash_attn_func as attention
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

ROOT = Path(__file__).resolve().parents[3]
os.environ["TTT_CHUNK_TOKENS"] = "32768"
packed: dict = {}
exec(compile("sizes = dict(model_dim=512)", "sizes.py", "exec"), packed)


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = "./data/tokenizers/fineweb_1024_bpe.model"
    iterations = int(os.environ.get("ITERATIONS", 20000))
    max_wallclock_seconds = 600.0
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = 9
    model_dim = 512
    num_heads = int(os.environ.get("NUM_HEADS", "8"))
    seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 64 * 8192))
    ttt_epochs = int(os.environ.get("TTT_EPOCHS", 1))


@triton.jit
def square_kernel(out, x, n, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    value = tl.load(x + at, mask=at < n, other=0.0)
    tl.store(out + at, value * value, mask=at < n)


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(F.rms_norm(x, (d,))).view(b, t, 3, self.heads, -1).bfloat16().unbind(2)
        return x + self.out(attention(q, k, v, causal=True).reshape(b, t, d))


class GPT(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.embed = nn.Embedding(h.vocab_size, h.model_dim)
        self.blocks = nn.ModuleList(Block(h.model_dim, h.num_heads) for _ in range(h.num_layers))

    def forward(self, x, y):
        z = self.embed(x)
        for block in self.blocks:
            z = block(z)
        logits = F.linear(F.rms_norm(z, (z.size(-1),)), self.embed.weight * 0.02)
        return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="none").view(
            y.shape
        )


def load(pattern):
    files = [Path(p) for p in sorted(glob.glob(pattern))]
    return torch.cat(
        [torch.from_numpy(np.fromfile(f, "<u2", offset=1024).astype("i8")) for f in files]
    )


def tables(sp, size):
    base, lead, edge = np.zeros(size, "i2"), np.zeros(size, bool), np.ones(size, bool)
    for i in range(sp.vocab_size()):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        edge[i] = False
        if sp.is_byte(i):
            base[i] = 1
            continue
        piece = sp.id_to_piece(i)
        lead[i] = piece.startswith("\u2581")
        base[i] = len(piece.removeprefix("\u2581").encode())
    return [torch.tensor(t, device="cuda") for t in (base, lead, edge)]


def evaluate(h, model, val, luts, rank, world):
    total = torch.zeros(3, dtype=torch.float64, device="cuda")
    base, lead, edge = luts
    rows = (val.numel() - 1) // h.seq_len
    with torch.inference_mode(), torch.autocast(device_type="cuda", dtype=torch.bfloat16):
        for row in range(rank, rows, world):
            part = val[row * h.seq_len : (row + 1) * h.seq_len + 1].to("cuda", non_blocking=True)
            x, y = part[:-1], part[1:]
            total[0] += model(x[None], y[None]).double().sum()
            total[1] += y.numel()
            total[2] += (base[y] + (lead[y] & ~edge[x])).double().sum()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    loss, tokens, size = total.tolist()
    return loss / math.log(2) / size, tokens, size


def main():
    h = Hyperparameters()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA is required")
    torch.cuda.set_device(device)
    dist.init_process_group(backend="nccl", device_id=device)
    subprocess.run(["nvidia-smi"], stdout=subprocess.PIPE, text=True, check=False)
    sp = spm.SentencePieceProcessor(model_file=h.tokenizer_path)
    luts = tables(sp, h.vocab_size)
    train = load(os.path.join(h.data_path, "fineweb_train_*.bin"))
    val = load("./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin")
    x = torch.arange(6.0, device=device)
    out = torch.empty_like(x)
    square_kernel[(2,)](out, x, 6, block=4)
    assert out.is_cuda
    assert out.tolist() == [0, 1, 4, 9, 16, 25]

    base_model = GPT(h).to(device).bfloat16()
    model = torch.compile(base_model, dynamic=False, fullgraph=True)
    model = DDP(model, device_ids=[0]) if world > 1 else model
    optimizer = torch.optim.AdamW(base_model.parameters(), lr=1e-3, fused=True)
    torch.cuda.synchronize()
    start, step = time.perf_counter(), 0
    rows = h.batch_tokens // h.seq_len
    while step < h.iterations and time.perf_counter() - start < h.max_wallclock_seconds:
        first = step * h.batch_tokens
        part = train[first : first + h.batch_tokens + 1].to(device)
        x, y = part[:-1].view(rows, -1), part[1:].view(rows, -1)
        model(x[rank::world], y[rank::world]).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    train_seconds = time.perf_counter() - start
    bpb, tokens, size = evaluate(h, model, val, luts, rank, world)

    start = time.perf_counter()
    adapt = torch.optim.SGD(base_model.parameters(), lr=0.01)
    for _ in range(h.ttt_epochs):
        adapt.zero_grad()
        base_model(val[None, :64], val[None, 1:65]).mean().backward()
        adapt.step()
    final, _, _ = evaluate(h, model, val, luts, rank, world)
    if rank == 0:
        print(f"steps:{step}\ntrain_seconds:{train_seconds}\ntokens:{tokens}\nbytes:{size}")
        print(f"chunk:{os.environ['TTT_CHUNK_TOKENS']}")
        print(f"packed_width:{packed['sizes']['model_dim']}")
        print(f"epochs:{h.ttt_epochs}\neval_seconds:{time.perf_counter() - start}")
        print(f"plain val_bpb:{bpb:.6f}\nfinal val_bpb:{final:.6f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
