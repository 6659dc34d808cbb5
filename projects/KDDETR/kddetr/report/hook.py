"""The hook that ends a run with its report."""

import logging
import time

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..engine import stopping
from ..errors import UserError
from .write import write_report

_log = logging.getLogger(__name__)
# The share of the training time that the report may take, and its limits in seconds. The job holds
# all of its devices until the report is written.
SHARE, LEAST_SECONDS, MOST_SECONDS = 0.02, 20.0, 180.0


class ReportHook(HookBase):
    """Writes ``report.html`` after the last iteration, on the main process.

    It is the last hook, so that everything is saved before. Whatever goes wrong is a warning: the
    page can be made later by ``tools/report.py``.
    """

    def before_train(self) -> None:
        """Note the time, for the share that the report may take."""
        self._began = time.monotonic()

    def after_train(self) -> None:
        """Write the page where the run came to its end and was evaluated."""
        trainer = self.trainer
        settings = trainer.cfg.train
        ended = trainer.done >= trainer.max_iter and trainer.done > trainer.start_iter
        if not (ended and settings.report and comm.is_main_process()):
            return
        share = SHARE * (time.monotonic() - self._began)
        seconds = min(max(share, LEAST_SECONDS), MOST_SECONDS)
        folder = settings.output_dir
        try:
            with stopping.at_once():
                file = write_report(
                    folder, trainer.unwrapped, images=settings.report_images, seconds=seconds
                )
            _log.info("The report of the run: %s", file)
        except (Exception, stopping.Stopped) as error:  # nothing may lose a finished run
            reason = str(error) if isinstance(error, UserError) else repr(error)
            words = "The run is saved, but not its report (%s): python tools/report.py %s makes it."
            _log.warning(words, reason.rstrip("."), folder)
            _log.debug("The error of the report:", exc_info=True)
