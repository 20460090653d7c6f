"""The guards of the package, each with a way to take it out: what a row of the matrix rests on is seen red.

Each old text occurs once in its file; `test_breaks` holds that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """A guard that is removed.

    Args:
        file: Under ``lightning_gradcam``.
        old: The text that guards.
        new: What stands there without it.
        about: The guard, for the table of regimes.
    """

    file: str
    old: str
    new: str
    about: str


def isolation(old: str, new: str, about: str) -> Break:
    return Break("capture/isolation.py", old, new, about)


def module_state(old: str, new: str, about: str) -> Break:
    return Break("capture/module_state.py", old, new, about)


def held_state(old: str, new: str, about: str) -> Break:
    return Break("capture/held_state.py", old, new, about)


def random_state(old: str, new: str, about: str) -> Break:
    return Break("capture/random_state.py", old, new, about)


def run(old: str, new: str, about: str) -> Break:
    return Break("callback/controller.py", old, new, about)


def callback(old: str, new: str, about: str) -> Break:
    return Break("callback/callback.py", old, new, about)


def ranks(old: str, new: str, about: str) -> Break:
    return Break("monitor/distributed.py", old, new, about)


OFFER = """takes_iterator(pl_module.validation_step):
            self._controller.add_batch(trainer, batch, "validation")

    def on_validation_batch_end"""

BREAKS = {
    "reentrant": isolation(
        "checkpoint.CheckpointFunction = _BypassCheckpoint", "_ = checkpoint_function",
        "reentrant checkpointing is bypassed in a snapshot",
    ),
    "torch random state": random_state(
        "torch.set_rng_state(cpu)", "cpu", "the random state of PyTorch is restored",
    ),
    "numpy random state": random_state(
        "np.random.set_state(numpy)", "numpy", "the random state of NumPy is restored",
    ),
    "python random state": random_state(
        "random.setstate(python)", "python", "the random state of Python is restored",
    ),
    "attention fast path": isolation(
        "mha.set_fastpath_enabled(fastpath)", "mha.get_fastpath_enabled()", "the fast path of attention is restored",
    ),
    "autocast cache": isolation(
        "torch.set_autocast_cache_enabled(cache)", "cache", "the weight cache of autocast is restored",
    ),
    "eager": isolation(
        'if "torch._dynamo" in sys.modules:', "if False:", "compiled code runs eagerly in a snapshot",
    ),
    "never eval": module_state(
        "_create_attributes(attributes, clones, held_state))\n",
        "_create_attributes(attributes, clones, held_state))\n            module.eval()\n",
        "`eval()` is never called: modes are set directly",
    ),
    "train flags": module_state(
        'object.__setattr__(module, "__dict__", attributes)',
        'module.__dict__ = {**attributes, "training": originals[0][1]["training"]}',
        "the training mode of every module is restored",
    ),
    "attributes copied": module_state(
        "isolated_attributes[name] = clones(value)", "pass", "a snapshot writes to copies of module tensors",
    ),
    "attributes restored": module_state(
        'object.__setattr__(module, "__dict__", attributes)', 'module.training = attributes["training"]',
        "the attributes of modules are restored",
    ),
    "requires_grad": isolation(
        "parameter.requires_grad_(requires_grad)", "pass", "`requires_grad` is restored",
    ),
    "buffers": module_state(
        "None if buffer is None else clones(buffer)", "buffer", "a snapshot works on copies of buffers",
    ),
    "hooks restored": module_state(
        "if registry != entries:", "if False:", "hooks that a snapshot installs or removes are undone",
    ),
    "hooks of weights": isolation(
        "if _list_hooks(parameter) != saved:", "if False:", "hooks on weights are restored",
    ),
    "classes of modules": module_state(
        "if type(module) is not cls:", "if False:", "the classes of modules are restored",
    ),
    "parameters restored": module_state(
        "_restore_parameters(attributes, saved)\n", "pass\n", "modules keep the parameters that they had",
    ),
    "lazy parameters": Break(
        "layers/checks.py", "for name, parameter in model.named_parameters() if is_lazy(parameter)]", "for name in ()]",
        "parameters are created by the run itself, before the first snapshot",
    ),
    "containers restored": held_state(
        "self._undo.callback(_restore_container, container, saved)", "pass",
        "containers and objects of the model are restored",
    ),
    "classes restored": held_state(
        "self._undo.callback(_restore_class, cls, attributes)", "pass",
        "attributes of the model's classes are restored",
    ),
    "function caches": held_state(
        "self._undo.callback(function.cache_clear)", "pass", "function caches that a snapshot fills first are emptied",
    ),
    "own generators": held_state(
        "elif (restore := seed_generator(value)) is not None:", "elif (restore := None):",
        "generators of the model are restored",
    ),
    "TorchScript": isolation(
        "            module.training = training\n", "", "the training mode of TorchScript parts is restored",
    ),
    "gradients": Break(
        "capture/passes.py",
        """gradients = torch.autograd.grad(
            total,
            list(self.tensors.values()),
            retain_graph=self.differentiable or self.retain_graph,
            create_graph=self.differentiable,
            allow_unused=True,
        )""",
        "[tensor.retain_grad() for tensor in self.tensors.values()]\n"
        "        total.backward(retain_graph=True)\n"
        "        gradients = [tensor.grad for tensor in self.tensors.values()]",
        "gradients are taken at the layer: no weight accumulates any",
    ),
    "gradients at pixels": Break(
        "methods/captum_adapter.py", "gradients = torch.autograd.grad(total, images, allow_unused=True) if",
        "total.backward()\n    gradients = (images.grad,) if",
        "gradients are taken at the pixels: no weight accumulates any",
    ),
    "graph": Break(
        "capture/outputs.py",
        "(tensor.clone() if tensor.is_inference() else tensor.detach()).requires_grad_()", "tensor",
        "the graph starts at the layer, whatever is frozen",
    ),
    "hooks": Break("capture/hooks.py", "handle.remove()", "handle", "hooks exist only during a snapshot"),
    "attack": Break(
        "attacks/apply.py", "with isolated(model), frozen(model), torch.enable_grad():", "with torch.enable_grad():",
        "everything is restored after an attack, including custom ones",
    ),
    "nothing logged": Break(
        "callback/trainer.py",
        "vars(submodule).update(log=_ignore, log_dict=_ignore)", "pass", "`log` is disabled during a snapshot",
    ),
    "precision": Break(
        "callback/session.py", "precision.convert_input(probe.images)", "probe.images",
        "given images are converted to the precision of the run",
    ),
    "iterator steps": Break(
        "callback/trainer.py", 'return "dataloader_iter" in inspect.signature(step).parameters', "return False",
        "batches that a step fetches are copied at its end",
    ),
    "validates": Break(
        "callback/trainer.py", "return bool(trainer.enable_validation) and", "return True or",
        "without validation, images come from training batches",
    ),
    "moments": Break(
        "callback/trainer.py", "return int(trainer.fit_loop.total_batch_idx)", "return int(trainer.global_step)",
        "snapshots are identified by batches, not by steps",
    ),
    "looked already": run(
        "self.explained_at != count_batches(trainer)):\n            step = max", "True):\n            step = max",
        "no moment has two snapshots",
    ),
    "between": callback(
        "if self._controller.logged_at != count_batches(trainer):", "if False:",
        "epochs that end without validation have snapshots, too",
    ),
    "every n": Break(
        "callback/schedule.py",
        "% self.every_n_epochs != 0", "% 1 != 0", "epochs outside the schedule are skipped",
    ),
    "start has no batch": run(
        "self.explained_at = None  # not the", "pass  # not the", "the first snapshot belongs to no batch",
    ),
    "end": run(
        'self.take_snapshot(trainer, module, f"end · step {step}", step)', "pass",
        "if training ends inside an epoch, there is a snapshot",
    ),
    "sanity": callback(
        "if not trainer.sanity_checking and trainer.state.fn", "if trainer.state.fn",
        "there are no snapshots during the sanity check",
    ),
    "fit only": callback(
        'not trainer.sanity_checking and trainer.state.fn == "fit"', "not trainer.sanity_checking",
        "entry points other than `fit` are ignored",
    ),
    "first loader": callback(
        " and dataloader_idx == 0", "", "images come from the first validation loader",
    ),
    "tag": callback(
        "_generate_state_key(tag=self.config.tag)", "_generate_state_key()",
        "each tag has its own state in checkpoints",
    ),
    "verbs": callback('if stage == "fit":', "if True:", "entry points other than `fit` keep the state"),
    "files": Break(
        "callback/snapshot_logger.py", "trainer.loggers or [self._run_files]", "trainer.loggers",
        "without a logger, figures and numbers become files",
    ),
    "writer": Break("loggers.py", 'register("CSVLogger")', 'register("")', "each logger has its own image writer"),
    "no images yet": Break(
        "callback/probe_source.py", "return self._collector is None or len(self._collector) > 0", "return True",
        "without an image, there is no snapshot before the first step",
    ),
    "resume": Break(
        "callback/session.py",
        "self.monitor.load_state_dict(checkpoint[\"watch\"])", "pass", "a resumed run continues its snapshots",
    ),
    "empty state": run(
        "**progress} if state else {}", "**progress}", "before the first snapshot there is no state to save",
    ),
    "never loads": callback(
        OFFER, OFFER.replace("batch,", "next(iter(trainer.val_dataloaders)),"), "loaders are never iterated",
    ),
    "never indexes": callback(
        OFFER,
        OFFER.replace("batch,", "[i[None] for i in trainer.val_dataloaders.dataset[0][:1]],"),
        "datasets are never indexed",
    ),
    "never transfers": callback(
        OFFER,
        OFFER.replace("batch,", "pl_module.on_after_batch_transfer(batch, 0),"),
        "batches are copied as the step receives them",
    ),
    "evaluation": module_state(
        'isolated_attributes = {**attributes, "training": False, ', "isolated_attributes = {**attributes, ",
        "no module is in train mode in a snapshot",
    ),
    "rows joined": ranks(
        "gathered[index][new:]", "gathered[index]", "images that two ranks explained count once",
    ),
    "rows of targets": Break(
        "explainer/chunking.py", "[select_rows(target, chunk) for target in targets]", "targets",
        "each image is explained for its own class",
    ),
    "one probe for all": Break(
        "callback/session.py",
        "self.ranks.broadcast_from_rank_zero(self._get_probe)", "self._get_probe()",
        "all ranks use the images of rank zero",
    ),
    "buffers of the first": ranks(
        "if self.count == 1:\n            return {}", "if True:\n            return {}",
        "all ranks use the buffers of rank zero in a snapshot",
    ),
    "all fail together": ranks(
        "if not self.strategy.reduce_boolean_decision(error is None):", "if error is not None:",
        "if one rank fails, all ranks raise",
    ),
    "each process has its memory": Break(
        "explainer/chunking.py", "if not is_out_of_memory(error) or not may_halve:", "if True:",
        "if memory runs out, half as many images are explained at once",
    ),
    "measured together": Break(
        "monitor/monitor.py", "self.sharded_explainer.ranks.run_on_all_ranks(measure)",
        "measure()", "maps that one rank fails to measure are kept by no rank",
    ),
    "values of the first": Break(
        "callback/snapshot_logger.py",
        "if self.ranks.count == 1:\n            return values", "if True:\n            return values",
        "every rank logs the values of rank zero",
    ),
    "through the wrapper": ranks(
        "if self.has_sharded_model else forward", "if False else forward", "forward passes go through the wrapper",
    ),
    "names without wrappers": Break(
        "capture/hooks.py", '"_fsdp_wrapped_module", ', "", "layer names omit wrappers",
    ),
    "FSDP sets itself up": ranks(
        'getattr(getattr(self.strategy, "model", None), "_is_root", True) is not None', "True",
        "FSDP initializes in a forward pass of the run, never in ours",
    ),
    "cast by the wrapper": ranks(
        "replace(probe, images=images))", "probe)", "images are cast as the wrapper casts them",
    ),
    "strategies that are served": ranks(
        '_SHARDS = ("FSDP", "ModelParallel")', '_SHARDS = ("FSDP",)', "all ranks run a sharded model together",
    ),
}  # fmt: skip
