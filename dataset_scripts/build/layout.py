"""The names of the files that a build leaves beside its data."""

BUILD_REPORT_FILE = "build_report.json"

BUILD_FILE = "build.json"

CARD_FILE = "README.md"

LICENCE_FILE = "LICENSE.md"  # a name that the Hub takes for `license_link`

ORIGIN_FILE = "extracted_from.json"  # beside images that were copied out of a dataset: which one

NOT_READ_FILE = "columns_not_read.json"  # beside them: the dataset's columns that were passed over

COHORT_FILE = "phantom.json"  # the settings and counts of a phantom cohort, beside its folders

PHANTOM_FILES = "phantom_files.json"  # in a source's folder: the files that dataset_scripts.phantom drew

STATISTICS_FILE = "pixel_statistics.json"

LEAKAGE_REPORT_FILE = "leakage_report.json"

LEAKAGE_SHEET_FILE = "leakage_pairs.png"

PROTECTED_PAIRS_FILE = ".protected_pairs.csv"  # hidden: no upload takes it

SHARDS_FOLDER = "data"

WORK_FOLDER = ".build"  # what an export needs until it is complete

LOCK_FILE = ".build.lock"
