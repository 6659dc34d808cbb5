"""Backbones: ResNets, Swin Transformers, any feature network of timm, and one for toy images."""
