"""scripts/serve.sh builds for a GPU where there is one, and only there.

Run: serve_script_test.py SOURCE_DIR

A copy of the scripts runs beside programs that write down how they were called.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = ("bash", "cat", "chmod", "dirname", "mkdir", "sed", "tail")
CMAKE = """#!/bin/bash
echo "$@" >>calls
mkdir -p "$2"
"""
NINJA = """#!/bin/bash
mkdir -p "$2/cli"
printf '#!/bin/bash\\necho served "$0" "$@"\\n' >"$2/cli/headcount"
chmod +x "$2/cli/headcount"
"""


class ServeScript(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.makedirs(f"{self.folder}/scripts")
        os.makedirs(f"{self.folder}/bin")
        for name in ("serve.sh", "stages.sh"):
            shutil.copy(f"{ROOT}/scripts/{name}", f"{self.folder}/scripts")
        self.write("scripts/setup.sh", "#!/bin/bash\n")
        self.write("bin/cmake", CMAKE)
        self.write("bin/ninja", NINJA)
        for tool in TOOLS:
            os.symlink(shutil.which(tool), f"{self.folder}/bin/{tool}")

    def write(self, path, text):
        with open(f"{self.folder}/{path}", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(f"{self.folder}/{path}", 0o755)

    def serve(self, *arguments):
        """(how cmake was called, standard output, standard error)"""
        done = subprocess.run(
            [f"{self.folder}/scripts/serve.sh", *arguments],
            env={"PATH": f"{self.folder}/bin"}, capture_output=True,
            text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(f"{self.folder}/calls", encoding="utf-8") as file:
            return file.read(), done.stdout, done.stderr

    def test_without_a_gpu_it_builds_for_the_cpu(self):
        calls, out, err = self.serve("--listen", "127.0.0.1:1")
        self.assertIn("--preset release", calls)
        self.assertIn("/build/release/cli/headcount serve "
                      "models/mailroom --listen 127.0.0.1:1", out)
        self.assertNotIn("GPU", err)

    def test_a_driver_without_a_gpu_is_no_gpu(self):
        self.write("bin/nvidia-smi", "#!/bin/bash\nexit 9\n")
        self.write("bin/nvcc", "#!/bin/bash\n")
        self.assertIn("--preset release", self.serve()[0])

    def test_with_a_gpu_and_a_toolkit_it_builds_for_that_gpu(self):
        self.write("bin/nvidia-smi", "#!/bin/bash\n")
        self.write("bin/nvcc", "#!/bin/bash\n")
        calls, out, err = self.serve()
        self.assertIn("experimental", err)
        self.assertIn("--preset cuda", calls)
        self.assertIn("-DCMAKE_CUDA_ARCHITECTURES=native", calls)
        self.assertIn("/build/cuda/cli/headcount serve", out)

    @unittest.skipIf(os.path.exists("/usr/local/cuda/bin/nvcc"),
                     "there is a toolkit where serve.sh looks for one")
    def test_a_gpu_without_a_toolkit_is_mentioned(self):
        self.write("bin/nvidia-smi", "#!/bin/bash\n")
        calls, _, err = self.serve()
        self.assertIn("--preset release", calls)
        self.assertIn("no CUDA toolkit", err)


if __name__ == "__main__":
    ROOT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
