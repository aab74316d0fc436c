"""`import medhiera` costs nothing; its two names come when they are asked for."""

import subprocess
import sys


def test_importing_the_package_imports_no_torch(root):
    code = (
        "import sys, medhiera\n"
        "assert {'Classifier', 'Encoder'} <= set(dir(medhiera))\n"
        "assert not {'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules), sorted(sys.modules)\n"
        "from medhiera import Encoder\n"
        "assert Encoder.__name__ == 'Encoder' and 'torch' in sys.modules\n"
        "assert not hasattr(medhiera, 'Decoder')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
