"""Stored probabilities are mixed with counts of what came before each token."""

import glob
import math
import os

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F

V = int(os.environ.get("VOCAB_SIZE", "1024"))
SEQ = int(os.environ.get("TRAIN_SEQ_LEN", "64"))
DATA = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")


def load(kind):
    files = sorted(glob.glob(os.path.join(DATA, f"fineweb_{kind}_*.bin")))
    parts = [np.fromfile(f, dtype="<u2", offset=1024) for f in files]
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def byte_tables():
    sp = sentencepiece.SentencePieceProcessor(model_file=os.environ.get("TOKENIZER_PATH", ""))
    base = torch.zeros(V, dtype=torch.int16)
    lead, edge = torch.zeros(V, dtype=torch.bool), torch.ones(V, dtype=torch.bool)
    for i in range(sp.vocab_size()):
        if sp.is_control(i) or sp.is_unknown(i):
            continue
        edge[i] = False
        piece = sp.id_to_piece(i)
        lead[i] = piece.startswith("\u2581")
        base[i] = 1 if sp.is_byte(i) else len(piece.removeprefix("\u2581").encode())
    return base, lead, edge


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(V, 32)
        self.qkv = torch.nn.Linear(32, 96, bias=False)
        self.head = torch.nn.Linear(32, V, bias=False)

    def hidden(self, x):
        h = self.embed(x)
        q, k, v = self.qkv(h)[:, None].chunk(3, dim=-1)
        return h + F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]

    def forward(self, x, y):
        logits = self.head(self.hidden(x))
        return F.cross_entropy(logits.reshape(-1, V), y.reshape(-1))


def train(model, tokens, steps, lr=0.5):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for i in range(steps):
        piece = tokens[i * SEQ * 4 : (i + 1) * SEQ * 4 + 1]
        optimizer.zero_grad()
        model(piece[:-1].view(4, SEQ), piece[1:].view(4, SEQ)).backward()
        optimizer.step()


def count_bytes(x, y, tables):
    base, lead, edge = tables
    return (base[y] + (lead[y] & ~edge[x]).to(torch.int16)).to(torch.float64).sum()


def first_pass(model, val):
    p = []
    with torch.no_grad():
        for at in range(0, len(val) - SEQ, SEQ):
            x, y = val[at : at + SEQ][None], val[at + 1 : at + SEQ + 1][None]
            rows = torch.softmax(model.head(model.hidden(x)).float(), dim=-1)
            p.append(rows.gather(2, y[..., None]).squeeze(-1)[0].cpu().numpy().astype(np.float32))
    return np.concatenate(p)


def lookup(tokens):
    table = np.zeros((V, V))
    q, seen = np.zeros(len(tokens) - 1, np.float32), np.zeros(len(tokens) - 1, bool)
    for i in range(1, len(tokens)):
        row = table[tokens[i - 1]]
        seen[i - 1] = row.sum() >= 1
        q[i - 1] = (row[tokens[i]] + 0.01) / (row.sum() + 0.01 * V)
        row[tokens[i]] += 1
    return q, seen


def bits(p, n_bytes):
    nll = -np.log(np.maximum(p, 1e-10)).astype(np.float64)
    loss_sum = torch.tensor(nll.sum(), dtype=torch.float64)
    count = torch.tensor(float(len(p)), dtype=torch.float64)
    loss = (loss_sum / count).item()
    return loss, loss / math.log(2.0) * (count.item() / n_bytes)


def evaluate(model, val, tables):
    p = first_pass(model, val)
    n = len(p)
    n_bytes = count_bytes(val[:n], val[1 : n + 1], tables).item()
    _, plain = bits(p, n_bytes)
    print(f"first pass val_bpb:{plain:.6f}")
    q, seen = lookup(val[: n + 1].numpy())
    mixed = 0.7 * p + 0.3 * q
    mixed[~seen] = p[~seen]
    loss, bpb = bits(mixed, n_bytes)
    print(f"second pass val_bpb:{bpb:.6f} gain:{plain - bpb:.6f}")
    print(f"final val_loss:{loss:.8f} val_bpb:{bpb:.8f}")


torch.manual_seed(0)
model = Model()
train(model, load("train"), int(os.environ.get("ITERATIONS", "4")))
evaluate(model, load("val"), byte_tables())
