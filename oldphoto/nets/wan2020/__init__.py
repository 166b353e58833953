"""The networks of *Bringing Old Photos Back to Life* at their published size (Wan et al., CVPR 2020; TPAMI 2022).

Layers and names are those of the released checkpoints, which therefore load strictly. Every network is one
configuration of the same few blocks; ``width`` is 64 in all that was published. Pictures are N × 3 × H × W in [0, 1]
and masks N × 1 × H × W, 1 = damaged, as everywhere in oldphoto; inside, the networks compute in [-1, 1].

Encoder, decoder and mappings normalise by statistics of the whole image, also at test time: a tile does not come out
as the same place of the whole image does.
"""
