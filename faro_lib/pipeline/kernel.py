"""The kernel manager of the stages' notebooks. Only papermill imports it, because `jupyter_client` takes 0.1 s to import."""

from jupyter_client.manager import AsyncKernelManager
from traitlets import Float


class PatientKernelManager(AsyncKernelManager):
    """Gives an interrupted cell 90 s to end, because an experiment on a live cluster first restores what it changed."""

    shutdown_wait_time = Float(90.0)
