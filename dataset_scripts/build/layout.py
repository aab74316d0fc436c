"""The names of the files that a build leaves beside its data."""

BUILD_REPORT_FILE = "build_report.json"

BUILD_FILE = "build.json"

CARD_FILE = "README.md"

PHANTOM_FILE = "phantom.json"  # what dataset_scripts.phantom leaves beside the folders it draws

STATISTICS_FILE = "pixel_statistics.json"

LEAKAGE_REPORT_FILE = "leakage_report.json"

LEAKAGE_SHEET_FILE = "leakage_pairs.png"

PROTECTED_PAIRS_FILE = ".protected_pairs.csv"  # hidden: no upload takes it

SHARDS_FOLDER = "data"

WORK_FOLDER = ".build"  # what an export needs until it is complete

LOCK_FILE = ".build.lock"
