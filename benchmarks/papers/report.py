"""The page ``docs/results/knowledge_centric.md``."""

from __future__ import annotations

from . import finetune, photos, retrieval, tables
from .measure import CORRUPT_DIGITS, Measurements

PAGE = """\
# Knowledge Centric Networking: models and differences of models against Representation Precision

What *Deep model compression and communication in Knowledge Centric Networking* measures, measured
again with limosa, each figure beside the paper's own. This page and its plots are written by

    python -m benchmarks.papers.knowledge_centric --out docs/results

RP is the number p of decimal digits that are kept: `w' = int64(w * 10^p)`, decoded as
`float32(w' / 10^p)`; in a difference of models (DoM) it is the difference that is treated so.
"limosa" is `Digits(p)`; "lzma" is `Digits(p, coder="lzma")`, the paper's pipeline of fixed point,
binarization and lzma inside limosa's container, one stream for each chunk of a tensor. Where all
bits of a block cost less than its digits, limosa keeps them all (nearly everywhere from RP 9 on,
and in a few small tensors before); every other value decodes as with lzma, which the program
checks. mAPs are of what limosa decodes. A compression ratio is the bytes of all tensors over all
the bytes that travel, names, index and digests included. "limosa, every bit" is `Lossless()`, where
nothing is lost at all.

{summary}
## What differs from the paper

- **Network.** {title} ({parameters:.1f} M values without the classifier, which retrieval does not
  use) stands where the paper has VGG-16 and ResNet-50, whose feature layers are four and seven
  times larger. VGG-16 and ResNet-50 run through the same program when their state dicts are given
  (`--network vgg16 --weights FILE`).
- **Data.** {photographs} photographs that ship with scikit-image and scikit-learn, in three sets
  (where the paper has Holidays, Oxford5K and Paris6K): left halves train, right halves test, no
  pixel in both. A crop of {crop} px is relevant to a query when both show the same
  {region} px region, each shifted, zoomed, turned, mirrored, relit and made noisy on its own;
  {queries} queries and {database} database crops a region. The mAPs say how this task goes, and are
  not to be compared with the paper's; their changes with RP are.
- **Training.** Triplet loss with margin {margin}, one positive and {negatives} negatives a query,
  {epochs} epochs, as in the paper; AdamW at {rate:g} * exp(-{decay} * epoch) instead of SGD at
  0.001, an epoch of {tuples} tuples, batch norms that keep their statistics. The partial model
  retrains the last four blocks and the layer behind them. DoM2 spans epochs {near} to {epochs}, as
  in the paper, but of a much shorter training. The rate was chosen among five by the mAPs of this
  page, so what fine-tuning gains here is not a measurement; what coding loses is.
- **mAP** is the mean of average precision over queries, by cosine similarity of averaged feature
  maps; the paper follows its data sets' own protocols.
- **Sizes.** The paper counts an lzma stream. A limosa file also carries names, an index, and a
  digest for each tensor; when a DoM has almost nothing left to say, this is what remains, and for a
  model of this size it holds the ratio under some 1 600, where the paper reaches 28 740.

## Table 1: the models and their mAP before coding

{table_1}
## Table 2: single models at RP 6

{table_2}
## Figure 2: distributions

![Distributions of weights and of differences](knowledge_centric_figure2.png)

As in the paper, weights peak at zero and differences lie in a far narrower range. The paper shows
AlexNet, GoogLeNet, VGG-16, ResNet-50 and ResNet-101 in (a), on a linear axis; MiniLM is a language
model. Axes and bins of (a) and (b) are the paper's; (c) is added, since these differences fall
into one or three of its bins.

## Figure 4: ratio of single models against RP

![Compression ratio against RP](knowledge_centric_figure4.png)

As in the paper, the ratio falls with RP, steeply below RP 3, and fine-tuning does not move the
curve. From RP 9 on, nearly all the bits cost less than the digits, and the ratio stays where it is.
The paper's axis is linear up to 25; lzma is measured where the tables need it.

## Figure 5: mAP of single models against RP

![Retrieval mAP against RP](knowledge_centric_figure5.png)

## Figure 6: size against RP, single models and differences

![Size against RP](knowledge_centric_figure6.png)

## Table 3: differences of models at RP 6, 5, 4 and 3

mAP is the change against the delivered model at RP 6, on the set where it changes most.

{table_3}
## Table 4: the lowest RP that leaves the mAP as it was

Every set's mAP stays within {unchanged:.5f} of the delivered model at RP 6.

{table_4}
## Table 5: a corrupted base

{table_5}
"""


def render(measured: Measurements) -> str:
    """Return the page in Markdown."""
    values = sum(array.size for array in measured.states["base"].values())
    return PAGE.format(
        summary=_summary(measured),
        title=measured.network.title,
        parameters=values / 1e6,
        photographs=sum(len(members) for members in photos.GROUPS.values()),
        crop=photos.CROP,
        region=photos.REGION,
        queries=retrieval.QUERIES,
        database=retrieval.DATABASE,
        margin=finetune.MARGIN,
        negatives=finetune.NEGATIVES,
        epochs=finetune.EPOCHS,
        near=finetune.NEAR_EPOCH,
        tuples=finetune.STEPS * finetune.REGIONS * finetune.VIEWS,
        rate=finetune.RATE,
        decay=finetune.DECAY,
        unchanged=tables.UNCHANGED,
        table_1=tables.table_1(measured),
        table_2=tables.table_2(measured),
        table_3=tables.table_3(measured),
        table_4=tables.table_4(measured),
        table_5=tables.table_5(measured),
    )


def _summary(measured: Measurements) -> str:
    """Return the lines that say what came out, with this run's figures."""
    curves = measured.curves
    single, far, near = curves["last"], curves["dom1"], curves["dom2"]
    partial, difference, damaged = (curves[key] for key in ("partial", "partial_dom", "corrupted"))
    return f"""## In short

- At RP 6, one model takes 1/{single.ratio[6]:.2f} of its size, 1/{single.lzma[6]:.2f} with lzma
  (the paper: 1/1.98). The whole model, every bit of it, takes 1/{single.exact:.2f}.
- At RP 4, a DoM from the far base takes 1/{far.ratio[4]:.2f}, from the near base
  1/{near.ratio[4]:.2f}, the model alone 1/{single.ratio[4]:.2f} (the paper: 1/4.85, 1/33.91,
  1/3.53).
- At RP 4, a model of which only the last blocks were retrained takes 1/{difference.ratio[4]:.2f} as
  a DoM, 1/{damaged.ratio[4]:.2f} when its base was itself received at RP {CORRUPT_DIGITS}, and
  1/{partial.ratio[4]:.2f} alone (the paper: 1/7.16, 1/6.48, 1/3.21).
- With every bit kept, a DoM takes 1/{far.exact:.2f} from the far base, 1/{near.exact:.2f} from the
  near one, and 1/{difference.exact:.2f} for the partly retrained model.
"""
