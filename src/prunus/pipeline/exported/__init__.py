"""Which files for other runtimes does a run leave?"""

from prunus.pipeline.exported.files_of_run import check_export, export_notes, export_of_run

__all__ = ["check_export", "export_notes", "export_of_run"]
