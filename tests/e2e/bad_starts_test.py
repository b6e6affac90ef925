"""What must keep a server from starting: exit code, and a message that names
what to mend."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import unittest

import served

FAILED = 1


class BadStarts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="headcount_e2e_")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def refuse(self, words, models=(served.DENSE,), command="serve",
               says="", **config):
        """`words` must all be in the message; nothing may be served. `says` is
        what stands first on stdout: empty, nothing stands there at all."""
        config = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0",
                  "kv_pool": "64MiB", "models": list(models), **config}
        done = subprocess.run(
            [served.BINARY, command, "--config",
             served.write_yaml(self.folder, config)],
            capture_output=True, text=True, env=served.environment(),
            stdin=subprocess.DEVNULL, timeout=served.DEADLINE, check=False)
        self.assertEqual(done.returncode, FAILED, done.stderr)
        self.assertEqual(done.stdout[:len(says)], says)
        self.assertEqual(done.stdout == "", says == "", done.stdout)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertLess(len(done.stderr), 1000)
        return done.stderr

    def copy_of_mailroom(self, *leave_out):
        path = os.path.join(self.folder, "copy")
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(served.MAILROOM, path)
        for name in leave_out:
            os.remove(os.path.join(path, name))
        return path

    def model_at(self, path, **more):
        return [{"name": "copy", "source": {"path": path}, **more}]

    def pruned(self, **layers):
        return [{**served.DENSE, "heads": {"pruned": {
            int(layer[1:]): heads for layer, heads in layers.items()}}}]

    # Masks.

    def test_a_mask_for_a_layer_that_does_not_exist(self):
        self.refuse(["layer 6", "6 layers"], models=self.pruned(l6=["0"]))

    def test_a_mask_for_a_head_that_does_not_exist(self):
        self.refuse(["layer 2", "head 12"], models=self.pruned(l2=["12"]))

    def test_a_mask_with_a_reversed_range(self):
        self.refuse(["models[0].heads.pruned.1[0]", "3-1"],
                    models=self.pruned(l1=["3-1"]))

    def test_a_mask_that_is_no_number(self):
        self.refuse(["models[0].heads.pruned.1[0]", "all"],
                    models=self.pruned(l1=["all"]))

    def mask_file(self, change):
        with open(os.path.join(served.MAILROOM, "heads_half.json"),
                  encoding="utf-8") as file:
            mask = json.load(file)
        change(mask)
        path = os.path.join(self.folder, "mask.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(mask, file)
        return [{**served.DENSE, "heads": {"mask_file": path}}]

    def test_a_mask_file_for_other_weights(self):
        self.refuse(["sha256", "mask.json"], models=self.mask_file(
            lambda mask: mask["base"].update(sha256="0" * 64)))

    def test_a_mask_file_for_another_shape(self):
        for key in ("layers", "q_heads", "kv_heads", "head_dim"):
            self.refuse([key, "7"], models=self.mask_file(
                lambda mask, key=key: mask["base"].update({key: 7})))

    def test_a_mask_file_that_contradicts_itself(self):
        self.refuse(["drop_kv"], models=self.mask_file(
            lambda mask: mask["layers"][0].update(drop_kv=[0])))

    def test_a_mask_file_with_an_unknown_key(self):
        self.refuse(["drop_v"], models=self.mask_file(
            lambda mask: mask["layers"][0].update(drop_v=[0])))

    def test_a_mask_file_of_another_format(self):
        self.refuse(["format", "heads/9"], models=self.mask_file(
            lambda mask: mask.update(format="heads/9")))

    def test_a_mask_file_that_is_not_there(self):
        models = [{**served.DENSE, "heads": {"mask_file": "nowhere.json"}}]
        self.refuse(["heads.mask_file", "nowhere.json does not exist"],
                    models=models)
        self.refuse(["server.yaml: models[0].heads.mask_file",
                     "nowhere.json does not exist"], command="check",
                    says="path ", models=models)

    # Model files.

    def test_a_folder_that_is_not_there(self):
        self.refuse(["model 'copy': source.path: /nowhere does not exist"],
                    models=self.model_at("/nowhere"))
        self.refuse(["server.yaml: models[0].source.path: /nowhere does not "
                     "exist"], command="check", says="path ",
                    models=self.model_at("/nowhere"))

    def test_a_file_of_the_model_that_is_not_there(self):
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            self.refuse([name], models=self.model_at(
                self.copy_of_mailroom(name)))

    def test_truncated_weights(self):
        path = self.copy_of_mailroom()
        weights = os.path.join(path, "model.safetensors")
        size = os.path.getsize(weights)
        for length in (0, 7, 8, 1000, size // 2, size - 1):
            os.truncate(weights, length)
            self.refuse(["model.safetensors"], models=self.model_at(path))
            shutil.copy(os.path.join(served.MAILROOM, "model.safetensors"),
                        weights)

    def test_weights_that_lie_about_themselves(self):
        def header_length(data):
            data[0:8] = (2**63).to_bytes(8, "little")

        def longer_shape(data):
            data[:] = data.replace(b'"shape":[192]', b'"shape":[193]', 1)

        def other_offsets(data):
            start = data.index(b'"data_offsets":[')
            data[start:start + 18] = b'"data_offsets":[99'

        def unknown_dtype(data):
            data[:] = data.replace(b'"dtype":"F16"', b'"dtype":"F17"', 1)

        def missing_tensor(data):
            data[:] = data.replace(b'"model.norm.weight"',
                                   b'"model.morn.weight"', 1)

        for lie, words in ((header_length, ()), (longer_shape, ()),
                           (other_offsets, ()), (unknown_dtype, ("F17",)),
                           (missing_tensor, ("model.norm.weight",))):
            with self.subTest(lie=lie.__name__):
                path = self.copy_of_mailroom()
                weights = os.path.join(path, "model.safetensors")
                with open(weights, "rb") as file:
                    data = bytearray(file.read())
                before = bytes(data)
                lie(data)
                self.assertNotEqual(bytes(data), before)
                with open(weights, "wb") as file:
                    file.write(data)
                self.refuse(["copy", *words], models=self.model_at(path))

    def test_a_config_json_that_lies(self):
        for key, value in (
                ("num_attention_heads", 0), ("num_attention_heads", 2**31),
                ("num_attention_heads", 13), ("num_key_value_heads", 5),
                ("num_key_value_heads", 24), ("head_dim", 0),
                ("head_dim", 64), ("num_hidden_layers", 10**9),
                ("num_hidden_layers", 7), ("hidden_size", -192),
                ("vocab_size", 2047), ("vocab_size", 10**12),
                ("intermediate_size", 513), ("rms_norm_eps", "small"),
                ("model_type", "mamba"), ("hidden_act", "relu")):
            with self.subTest(key=key, value=value):
                path = self.copy_of_mailroom()
                self.change_json(os.path.join(path, "config.json"),
                                 {key: value})
                self.refuse(["copy"], models=self.model_at(path))

    def change_json(self, path, values):
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        content.update(values)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)

    def test_a_config_json_of_brackets(self):
        path = self.copy_of_mailroom()
        for name in ("config.json", "tokenizer.json"):
            with open(os.path.join(path, name), "w", encoding="utf-8") as file:
                file.write("[" * 100000)
            self.refuse(["copy"], models=self.model_at(path))
            shutil.copy(os.path.join(served.MAILROOM, name), path)

    # The server's own file.

    def test_an_unknown_key(self):
        self.refuse(["kv_pol", "kv_pool", "server.yaml"], kv_pol="1GiB")

    def test_an_unknown_key_of_a_model(self):
        self.refuse(["models[0].heads.prune", "pruned"], models=[
            {**served.DENSE, "heads": {"prune": {0: [1]}}}])

    def test_a_value_of_the_wrong_kind(self):
        self.refuse(["step_tokens", "many"], step_tokens="many")
        self.refuse(["kv_pool", "lots"], kv_pool="lots")
        self.refuse(["drain.grace", "5"], drain={"grace": "5"})

    def test_two_models_of_one_name(self):
        self.refuse(["server.yaml: models[1].name", "mailroom"],
                    models=[served.DENSE, served.DENSE])

    def test_no_model(self):
        self.refuse(["models"], models=[])

    def test_a_model_that_does_not_fit_the_pool(self):
        self.refuse(["kv_pool: 16.0 KiB is too small", "mailroom",
                     "needs 2.0 MiB;", "--kv-pool"], kv_pool="16KiB")

    def test_a_quota_that_does_not_fit_the_pool(self):
        quota = {"kv_cache": {"quota": {"min": "128MiB"}}}
        self.refuse(["kv_pool: 64.0 MiB is too small",
                     "needs 128 MiB for its kv_cache.quota.min"],
                    models=[{**served.DENSE, **quota}])

    def test_a_template_without_a_place_for_the_input(self):
        self.refuse(["'mailroom'", "classify.template", "{input}"], models=[
            {**served.DENSE, "classify": {"template": "no place",
                                          "labels": ["a", "b"]}}])

    # The machine.

    def test_a_port_in_use(self):
        for key in ("listen", "metrics_listen"):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                address = "127.0.0.1:%d" % taken.getsockname()[1]
                self.refuse([address, "in use"], **{key: address})

    def test_check_finds_the_same_without_serving(self):
        self.refuse(["kv_pol"], command="check", kv_pol="1GiB")
        # What the files are is told also where they cannot be served so.
        self.refuse(["layer 6"], command="check", says="path ",
                    models=self.pruned(l6=["0"]))


class GoodStarts(unittest.TestCase):
    """The files that we hand out are ones that `check` accepts."""

    def check(self, *arguments):
        done = subprocess.run([served.BINARY, "check", *arguments],
                              capture_output=True, text=True,
                              env=served.environment(), check=False,
                              timeout=served.DEADLINE)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_model_of_the_house(self):
        self.check(served.MAILROOM)

    def test_the_server_files_that_are_deployed(self):
        for name in ("docker/server.yaml",
                     "deploy/kubernetes/base/server.yaml"):
            with open(os.path.join(served.stubs.SOURCE, name),
                      encoding="utf-8") as file:
                # Values stay text, as the server reads them.
                config = served.yaml.load(file, served.yaml.BaseLoader)
            # In the image, models are in /models.
            for model in config["models"]:
                path = model["source"]["path"]
                self.assertTrue(path.startswith("/models/"), name)
                model["source"]["path"] = served.stubs.SOURCE + path
            with tempfile.TemporaryDirectory() as folder:
                self.check("--config", served.write_yaml(folder, config))


if __name__ == "__main__":
    unittest.main()
