r"""Distil a trained detector into a small one, on a folder of images of your own.

    python tools/distill.py TEACHER DATA --student dino_r18

TEACHER is the file of a trained detector: of this project, of DAB-DETR, Deformable DETR or DINO as
their authors, detrex or Hugging Face publish it; hf://OWNER/NAME or a folder of a real-time
detector of the package transformers; or a name in Detectron2's model zoo. DATA is a folder with
images and labels, as COCO, YOLO or Pascal VOC have it. What is decided is printed with what
changes it, and written as a config file, which is then trained; --dry-run stops there.
"""

import gc
import signal

if __name__ in ("__main__", "__mp_main__"):
    # Ctrl-C while the libraries are imported ends the program without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse

from kddetr.recipes.command import add_flags, request_of, run

if __name__ in ("__main__", "__mp_main__"):
    gc.freeze()  # what the libraries made stays; looking through it at the end takes a second


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, plan the distillation, and train it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    teacher = "its file, the folder of its run, hf://OWNER/NAME, or a name in the zoo"
    add("teacher", metavar="TEACHER", nargs="?", default="", help=teacher)
    add("data", metavar="DATA", nargs="?", default="-", help="folder with labels; - for none")
    add("--student", default="", metavar="NAME", help="the detector to train; 'list' shows all")
    add("--unlabeled", default="", metavar="DIR", help="folder of images without labels")
    add("--teacher-config", default="", metavar="FILE", help="config of a teacher not recognised")
    add(
        "--teacher-classes",
        default="",
        metavar="NAMES",
        help="class names of a teacher whose file has none: a,b,c, a COCO file, or the word data",
    )
    add(
        "--same-class",
        action="append",
        default=[],
        dest="same_classes",
        metavar="DATA=TEACHER",
        help="two names of one class; may be repeated",
    )
    add_flags(parser)
    run(*request_of(parser, argv))


if __name__ == "__main__":
    main()
