r"""Train a detector on a folder of images of your own, for instance a teacher.

    python tools/train.py DATA --model dino_r50
    python tools/train.py DATA --weights dino_r50_4scale_12ep.pth

DATA is a folder with images and labels, as COCO, YOLO or Pascal VOC have it. --weights starts from
a published detector, whose class heads are made anew for other classes. What is decided is printed
with what changes it, and written as a config file, which is then trained; --dry-run stops there.
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
    """Parse the command line, plan the training, and run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", metavar="DATA", nargs="?", default="", help="folder with images and labels")
    add("--model", default="", metavar="NAME", help="the detector to train; 'list' shows all")
    add("--weights", default="", metavar="FILE", help="weights to start from, published ones too")
    add_flags(parser)
    run(*request_of(parser, argv))


if __name__ == "__main__":
    main()
