"""DAB-DETR and Deformable DETR end to end: every stage, both padded images, losses, gradients."""

import pytest
import torch
import torch.nn.functional as F

from kddetr.detectors.encoder import cell_centres
from kddetr.detectors.matcher import Target
from kddetr.detectors.memory import FeatureLevels
from tests.golden_numbers.files import ATOL, RTOL, Golden
from tests.golden_numbers.models import feature_names, golden_dab_detr, golden_deformable_detr
from tests.golden_numbers.names import DAB_DETR_DETREX, DEFORMABLE_DETREX, rename

FILES = ["dab_detr", "deformable_detr_plain", "deformable_detr_refine"]


class Run:
    """One forward of a golden detector, with what its layers saw and gave."""

    def __init__(self, name: str) -> None:
        self.z = z = Golden(name)
        self.dab = name == "dab_detr"
        self.model = (golden_dab_detr if self.dab else golden_deformable_detr)(z)
        self.model.train()
        if self.dab:
            self.features = {"res5": z["in/feat"].requires_grad_()}
            self.paddings = [z["in/mask"]]
        else:
            self.features = {n: z[f"in/feat_{n}"].requires_grad_() for n in feature_names(z)}
            self.paddings = z.numbered("in/mask")
        sizes = [tuple(s) for s in z["in/image_sizes"].tolist()]
        self.sizes = sizes
        self.seen: dict[str, list] = {"encoder": [], "decoder": [], "geometry": []}
        for layer in self.model.encoder.layers:
            layer.register_forward_hook(lambda m, i, out: self.seen["encoder"].append(out))
        for layer in self.model.decoder.layers:
            layer.register_forward_hook(lambda m, i, out: self.seen["decoder"].append(out))
            layer.register_forward_pre_hook(lambda m, i: self.seen["geometry"].append(i[1]))
        self.levels = self.model.neck(self.features)
        self.memory = self.model.encode_features(self.features, self.paddings, sizes)
        self.own = self.model.queries(self.memory)
        self.predictions = self.model.decode(self.memory, self.own)
        self.targets = [
            Target(labels, boxes)
            for labels, boxes in zip(
                z.numbered("in/targets/labels"), z.numbered("in/targets/boxes"), strict=True
            )
        ]

    @property
    def valid(self) -> torch.Tensor:
        return ~torch.cat([p.flatten(1) for p in self.paddings], dim=1)


@pytest.fixture(scope="module", params=FILES)
def run(request) -> Run:
    return Run(request.param)


def test_masks_are_those_of_the_image_sizes(run):
    height, width = run.z["in/padded_size"].tolist()
    image = torch.ones(len(run.sizes), height, width)
    for i, (h, w) in enumerate(run.sizes):
        image[i, :h, :w] = 0
    for padding in run.paddings:
        resized = F.interpolate(image[None], size=padding.shape[-2:])[0].bool()
        assert torch.equal(resized, padding)


def test_levels_and_position(run):
    z = run.z
    names = ["out/src"] if run.dab else [f"out/src_{i}" for i in range(len(run.levels))]
    for name, level in zip(names, run.levels, strict=True):
        z.check(name, level)
    names = ["out/pos_embed"] if run.dab else [f"out/pos_embed_{i}" for i in range(len(run.levels))]
    for name, padding in zip(names, run.paddings, strict=True):
        position = run.model.encoder.position_embedding(padding).permute(0, 3, 1, 2)
        z.check(name, position, where=(~padding)[:, None].expand_as(position))


def test_encoder(run):
    z = run.z
    for i, out in enumerate(run.seen["encoder"]):
        if f"out/enc_layer_{i}" in z.arrays:
            z.check(f"out/enc_layer_{i}", out, where=run.valid)
    z.check("out/memory", run.memory.tokens, where=run.valid)
    if not run.dab:
        z.check("out/valid_ratios", run.memory.valid_ratios)
        z.check("out/spatial_shapes", torch.tensor(run.memory.shapes))
        centres = cell_centres(run.memory.shapes, run.memory.valid_ratios)
        z.check("out/enc_reference_points", centres)


def test_decoder_layer_by_layer(run):
    z = run.z
    geometry = run.seen["geometry"]
    for i, out in enumerate(run.seen["decoder"]):
        z.check(f"out/dec_layer_{i}", out)
        embedding = geometry[i].embedding.expand_as(out)
        z.check(f"out/dec_query_pos_{i}", embedding)
        if run.dab:
            z.check(f"out/dec_query_sine_{i}", geometry[i].sine)
        else:
            ratios = run.memory.valid_ratios[:, None]
            ratios = ratios.repeat(1, 1, 1, geometry[i].boxes.shape[-1] // 2)
            z.check(f"out/dec_reference_input_{i}", geometry[i].boxes[:, :, None] * ratios)
    norm = run.model.decoder.norm or torch.nn.Identity()
    z.check("out/hs", torch.stack([norm(x) for x in run.seen["decoder"]]))
    if run.dab:
        z.check("out/reference", torch.stack([g.boxes for g in geometry]))
    else:
        z.check("out/init_reference", run.own.boxes)
        for i, entering in enumerate(geometry[1:]):
            wanted = z["out/inter_references"][i]
            torch.testing.assert_close(entering.boxes.detach(), wanted, atol=ATOL, rtol=0)


def test_predictions_and_detections(run):
    z = run.z
    z.check("out/logits", run.predictions.logits)
    z.check("out/boxes", run.predictions.boxes)
    detections = run.model.detections(run.predictions.last(), run.sizes)
    for i, found in enumerate(detections):
        z.check(f"out/det_scores_{i}", found.scores)
        z.check(f"out/det_labels_{i}", found.pred_classes)
        boxes = z[f"out/det_boxes_{i}"]
        torch.testing.assert_close(found.pred_boxes.tensor, boxes, atol=1e-2, rtol=0)


def test_matching_losses_and_gradients(run):
    z = run.z
    matches = run.model.criterion.matcher(run.predictions, run.targets)
    for layer in range(run.predictions.num_layers):
        for i in range(len(run.targets)):
            source, target = matches.of(layer, i)
            assert torch.equal(source, z[f"loss/match_layer_{layer}/src_{i}"])
            assert torch.equal(target, z[f"loss/match_layer_{layer}/tgt_{i}"])
    losses = run.model.criterion(run.predictions, run.targets)
    for name, loss in losses.items():
        z.check_relative(f"loss/{name}", loss)
    weights = z.config["loss_weights"]
    total = sum(weights["_".join(k.split("_")[:2])] * v for k, v in losses.items())
    z.check_relative("loss/total_weighted", total)

    run.model.zero_grad()
    for feature in run.features.values():
        feature.grad = None
    total.backward()
    for name, feature in run.features.items():
        z.check_relative("grad/in_feat" if run.dab else f"grad/feat_{name}", feature.grad)
    if run.dab:
        z.check_relative("grad/anchor_box_embed", run.model.query_source.anchors.grad)
    check_parameter_gradients(z, run.model, DAB_DETR_DETREX if run.dab else DEFORMABLE_DETREX)


def check_parameter_gradients(z, model, rules, prefix: str = "grad") -> None:
    """The norm of every parameter's gradient, by the published name of the parameter."""
    parameters = dict(model.named_parameters())
    wanted = dict(
        zip(
            (str(n) for n in z.arrays[f"{prefix}/param_names"]),
            z.arrays[f"{prefix}/param_l2"].tolist(),
            strict=True,
        )
    )
    renamed = rename(wanted, rules)
    assert renamed.keys() == parameters.keys()
    for name, norm in renamed.items():
        gradient = parameters[name].grad
        actual = 0.0 if gradient is None else float(gradient.double().norm())
        assert actual == pytest.approx(norm, rel=RTOL, abs=ATOL), name


def test_images_of_a_padded_batch_are_what_they_are_alone(run):
    """Padding never changes an answer: each image again, without the other and without padding."""
    for training in (True, False):
        run.model.train(training)
        for i in range(len(run.sizes)):
            features, paddings = [], []
            for level, padding in zip(run.levels, run.paddings, strict=True):
                h, w = int((~padding[i, :, 0]).sum()), int((~padding[i, 0]).sum())
                features.append(level[i : i + 1, :, :h, :w])
                paddings.append(torch.zeros(1, h, w, dtype=torch.bool))
            memory = run.model.encoder(FeatureLevels(features, paddings))
            alone = run.model.decode(memory, run.model.queries(memory))
            together = run.predictions
            torch.testing.assert_close(alone.logits[:, 0], together.logits[:, i], atol=ATOL, rtol=0)
            torch.testing.assert_close(alone.boxes[:, 0], together.boxes[:, i], atol=ATOL, rtol=0)
    run.model.train()
