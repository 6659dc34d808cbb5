"""Real-time detectors of Hugging Face's package ``transformers``, wrapped so that they answer
queries: RT-DETR, RT-DETRv2, D-FINE and DEIMv2.
"""
