"""Train or evaluate: ``python train_net.py --config-file CONFIG.py [--flags] [key=value ...]``.

The flags are those of Detectron2; everything else is in the config file, whose section ``train`` is
described in kddetr/engine/config/defaults.py. An error that the user can put right is reported in
one sentence with exit code 2.
"""

import gc
import signal

if __name__ in ("__main__", "__mp_main__"):
    # Ctrl-C while the libraries are imported ends the program without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from kddetr.engine.program import main  # kddetr filters the warnings of libraries first
from kddetr.preflight import before_training
from kddetr.report import ReportHook

if __name__ in ("__main__", "__mp_main__"):
    gc.freeze()  # what the libraries made stays; looking through it at the end takes a second

if __name__ == "__main__":
    main(epilog=__doc__, hooks=[ReportHook], before=[before_training])
