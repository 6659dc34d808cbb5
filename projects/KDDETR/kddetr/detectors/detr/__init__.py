"""Detection transformers: DAB-DETR, Deformable DETR and DINO, put together around one decoder."""
