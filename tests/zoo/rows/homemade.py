"""Models of plain torch, as people write them: no configuration, no marks on what is pretrained, a state dict."""

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.nn.utils.parametrizations import weight_norm

WIDTH, HEADS, WORDS, CLASSES = 32, 4, 60, 3


def split(x):
    """(batch, tokens, width) -> (batch, heads, tokens, width / heads)."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def join(x):
    return x.transpose(1, 2).flatten(2)


class UNet(nn.Module):
    """Two levels down and up again, with a shortcut at each; a score for each pixel."""

    def __init__(self):
        super().__init__()
        self.inc, self.down = self.double(3, 16), self.double(16, 32)
        self.bottom, self.up = self.double(32, 32), nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge = self.double(32, 16)
        self.outc = nn.Conv2d(16, CLASSES, 1)

    @staticmethod
    def double(inputs, outputs):
        parts = [
            part
            for width in (inputs, outputs)
            for part in (nn.Conv2d(width, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU())
        ]
        return nn.Sequential(*parts)

    def forward(self, x):
        first = self.inc(x)
        low = self.bottom(self.down(nn.functional.max_pool2d(first, 2)))
        return self.outc(self.merge(torch.cat([first, self.up(low)], 1)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        return self.classifier(self.lstm(self.embedding(ids))[0][:, -1])


class TorchEncoder(nn.Module):
    """torch's own encoder: attention there reads the weights of its projections without calling them."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        return self.classifier(self.encoder(self.embedding(ids)).mean(1))


class GraphNetwork(nn.Module):
    """Two rounds of messages along the edges; a batch is one graph."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"own": nn.Linear(WIDTH, WIDTH), "message": nn.Linear(WIDTH, WIDTH)}) for _ in range(2)
        )
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, x, edges):
        start, end = edges
        for layer in self.layers:
            sent = torch.zeros_like(x).index_add(0, end, layer["message"](x)[start])
            x = torch.relu(layer["own"](x) + sent)
        return self.readout(x)


class Normed(nn.Module):
    """Layers whose weight is computed from a length and a direction."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(weight_norm(nn.Linear(WIDTH, 64)), nn.GELU(), weight_norm(nn.Linear(64, WIDTH)))
            for _ in range(2)
        )
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.classifier(x.mean(1))


class Block(nn.Module):
    """A transformer block as in timm: one projection for query, key and value."""

    def __init__(self, kind=nn.Linear):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict({"qkv": kind(WIDTH, 3 * WIDTH), "proj": kind(WIDTH, WIDTH)})
        self.mlp = nn.Sequential()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = kind(WIDTH, 64), nn.GELU(), kind(64, WIDTH)

    def forward(self, x):
        query, key, value = map(split, self.attn["qkv"](self.norm1(x)).chunk(3, -1))
        x = x + self.attn["proj"](join(scaled_dot_product_attention(query, key, value)))
        return x + self.mlp(self.norm2(x))


class TimmVit(nn.Module):
    """A vision transformer with timm's names."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, 8, 8)
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class Shared(nn.Module):
    """One block that stands in two places."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        block = Block()
        self.layers = nn.ModuleList([block, block])
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x.mean(1))


class MyLinear(nn.Linear):
    """What people derive from Linear to count or to scale."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Derived(nn.Module):
    """Attention of one's own, with a class of one's own in place of Linear."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: MyLinear(WIDTH, WIDTH) for name in ("to_q", "to_k", "to_v", "to_out")})
            for _ in range(2)
        )
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            parts = (split(layer[name](x)) for name in ("to_q", "to_k", "to_v"))
            x = x + layer["to_out"](join(scaled_dot_product_attention(*parts)))
        return self.classifier(x.mean(1))


class Functional(nn.Module):
    """Parameters and functions; there are no modules within."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(64, WIDTH))
        self.first_bias = nn.Parameter(torch.zeros(64))
        self.second = nn.Parameter(torch.zeros(CLASSES, 64))

    def forward(self, x):
        return linear(torch.tanh(linear(x.mean(1), self.first, self.first_bias)), self.second)


class Experts(nn.Module):
    """A mixture with one expert for each example: at a step some have nothing to do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "router": nn.Linear(WIDTH, 4),
                    "experts": nn.ModuleList(
                        nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, WIDTH)) for _ in range(4)
                    ),
                }
            )
            for _ in range(2)
        )
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = x.mean(1)
        for layer in self.layers:
            share, chosen = layer["router"](x).softmax(-1).max(-1)
            out = torch.zeros_like(x)
            for number, expert in enumerate(layer["experts"]):
                mine = chosen == number
                if mine.any():
                    out[mine] = expert(x[mine]) * share[mine].unsqueeze(-1)
            x = x + out
        return self.classifier(x)


class Attending(nn.Module):
    """A piece of a block, called by the model itself."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.to_q, self.to_kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.to_out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = self.norm(x)
        keys, values = self.to_kv(x).chunk(2, -1)
        return self.to_out(join(scaled_dot_product_attention(split(self.to_q(x)), split(keys), split(values))))


class InPieces(nn.Module):
    """Blocks as lists of two pieces."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Attending(),
                    nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH)),
                ]
            )
            for _ in range(2)
        )
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        x = self.embedding(ids)
        for attend, feed_forward in self.layers:
            x = x + attend(x)
            x = x + feed_forward(x)
        return self.classifier(x.mean(1))


class Pooled(nn.Module):
    """A head of one's own, of two layers, on the mean of what a pretrained model gives."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.pool, self.answer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x, **masks):
        return self.answer(torch.tanh(self.pool(self.base(x, **masks).last_hidden_state.mean(1))))
