"""Which images a trial learns from: data sets, the validation split carved from them, batches on the device."""

from trainables.data.load import DATASETS, Splits, forbid_test_split, load_data, load_test
from trainables.data.source import Files, Images, Source
from trainables.data.split import Split

__all__ = [
    "DATASETS",
    "Files",
    "Images",
    "Source",
    "Split",
    "Splits",
    "forbid_test_split",
    "load_data",
    "load_test",
]
