"""The kernel of a stage's notebook. Only papermill loads this module, because `jupyter_client` takes 0.1 s to import."""

from jupyter_client.manager import AsyncKernelManager
from traitlets import Float


class PatientKernelManager(AsyncKernelManager):
    """Waits for a cell that was interrupted: an experiment on a cluster puts back what it has changed."""

    shutdown_wait_time = Float(90.0)
