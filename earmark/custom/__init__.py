"""Own sounds: a folder of recordings -> a tagger, with a report on how good it is.

    from earmark.custom import FitOptions, fit

    report = fit("my_sounds", "my_sounds.onnx", FitOptions(depth="probe"))
    print(report.summary())

Conventions: an *example* is a clip: a file, or a region of one, with its labels; one without labels is
background. Features of windows come from :class:`earmark.Tagger`, so scores within a fit are those of
``earmark tag``. A *group* holds takes of one source, which are never on both sides of a split. The extra
"fit" has what is needed; depths "head" and "full" need "train" too.
"""

from earmark.custom.dataset import Dataset, merged, read_dataset
from earmark.custom.example import Example
from earmark.custom.fit import fit
from earmark.custom.options import FitOptions
from earmark.custom.page import write_report
from earmark.custom.report import FitReport

__all__ = ["Dataset", "Example", "FitOptions", "FitReport", "fit", "merged", "read_dataset", "write_report"]
