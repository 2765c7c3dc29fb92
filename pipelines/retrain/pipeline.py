"""The DAG: raw text in, a gated and registered model out. The same definition runs here and on a cluster."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_task import PipelineTask

from embedline.artifacts.code_version import COMPILED_FOR
from embedline.components.clean.component import clean
from embedline.components.evaluate.component import evaluate
from embedline.components.export.component import export
from embedline.components.finish.component import finish
from embedline.components.gate.component import gate
from embedline.components.image import CODE
from embedline.components.ingest.component import ingest
from embedline.components.mine.component import mine
from embedline.components.preflight.component import preflight
from embedline.components.pretrain.component import pretrain
from embedline.components.promote.component import promote
from embedline.components.prune.component import prune
from embedline.components.report.component import report
from embedline.components.train_supervised.component import train_supervised
from embedline.components.train_unsupervised.component import train_unsupervised
from embedline.config.schema import RunConfig
from embedline.pipelines.retrain.policy import on_a_cluster, on_this_machine, pipeline_config


def retrain_pipeline(config: RunConfig | None = None, workspace: str = "/workspace") -> GraphComponent:
    """Build the pipeline for a cluster with a run's config; without a config, for this machine.

    Args:
        workspace: default of the input of that name, and where the shared volume is mounted.
    """
    settle = on_a_cluster(config, workspace) if config else on_this_machine

    @dsl.pipeline(
        name="embedline-retrain",
        display_name="Embedline: retrain",
        pipeline_config=pipeline_config(config),
    )
    def retrain(
        preset: str = "demo",
        overrides: str = "",
        workspace: str = workspace,
        run_name: str = "",
        seed: int = -1,
        data_root: str = "",
        base_model: str = "",
        pretrain_steps: int = 0,
        unsupervised_steps: int = 0,
        supervised_steps: int = 0,
        gate_mode: str = "",
        promotion: str = "",
        experiment: str = "",
    ):
        """Retrain an embedding model: clean, pretrain, train, export, evaluate, gate, promote.

        Args:
            preset: The run to do: a shipped preset's name, or the path of a preset file in the image.
            overrides: Changes to the preset, one section.key=value a line (or a JSON list); none when empty.
            workspace: Folder that all steps share (a mounted volume on a cluster): runs, store, checkpoints.
            run_name: Name of the run's folder in the workspace; the pipeline job's id when empty.
            seed: Seed of everything random; -1 for the preset's.
            data_root: Folder or address that the preset's data paths start from; empty for the preset's.
            base_model: Model to start from (a folder, a hub id or package:NAME); empty for the preset's.
            pretrain_steps: Steps of pretraining; 0 for the preset's.
            unsupervised_steps: Steps of training on pairs; 0 for the preset's.
            supervised_steps: Steps of training on triplets; 0 for the preset's.
            gate_mode: One of enforce, dry_run, off; empty for the preset's.
            promotion: Either auto (a passed candidate becomes champion) or manual; empty for the preset's.
            experiment: Experiment of the tracking server; empty for the preset's.
        """
        named = {"workspace": workspace, "run_name": run_name, "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        closing = settle("finish", finish(preset=preset, **named))

        # A stage that is switched off passes its input through inside the step: one DAG serves every preset.
        with dsl.ExitHandler(closing, name="line"):
            checked = settle(
                "preflight",
                preflight(
                    preset=preset,
                    overrides=overrides,
                    seed=seed,
                    data_root=data_root,
                    base_model=base_model,
                    pretrain_steps=pretrain_steps,
                    unsupervised_steps=unsupervised_steps,
                    supervised_steps=supervised_steps,
                    gate_mode=gate_mode,
                    promotion=promotion,
                    experiment=experiment,
                    **named,
                ),
            )
            checked.set_env_variable(COMPILED_FOR, CODE)

            def run(name: str, component: BaseComponent, /, **inputs: object) -> PipelineTask:
                given = {"config_json": checked.outputs[name], "workspace": workspace}
                return settle(name, component(**given, run=checked.outputs["run"], **inputs))

            ingested = run("ingest", ingest)
            evaluation = ingested.outputs["evaluation"]
            cleaned = run("clean", clean, dataset=ingested.outputs["dataset"], evaluation=evaluation)
            dataset = cleaned.outputs["cleaned"]

            pruned_base = run("prune_before", prune, step="prune_before", dataset=dataset)
            pruned_base.set_display_name("prune (before)")
            pretrained = run("pretrain", pretrain, model=pruned_base.outputs["pruned"], dataset=dataset)
            started = pretrained.outputs["trained"]
            unsupervised = run("train_unsupervised", train_unsupervised, model=started, dataset=dataset)
            weak = unsupervised.outputs["trained"]
            mined = run("mine", mine, model=weak, dataset=dataset)
            triplets = mined.outputs["triplets"]
            supervised = run("train_supervised", train_supervised, model=weak, triplets=triplets)
            trained = supervised.outputs["trained"]
            pruned = run("prune_after", prune, step="prune_after", model=trained, dataset=dataset)
            pruned.set_display_name("prune (after)")
            candidate = pruned.outputs["pruned"]

            exported = run("export", export, model=candidate, evaluation=evaluation)
            onnx = exported.outputs["onnx"]
            evaluated = run(
                "evaluate",
                evaluate,
                pretrained=started,
                unsupervised=weak,
                supervised=trained,
                candidate=candidate,
                onnx=onnx,
                evaluation=evaluation,
            )
            scores = evaluated.outputs["scores"]
            judged = run("gate", gate, scores=scores, onnx=onnx, candidate=candidate)
            verdict = judged.outputs["verdict"]
            promoted = run("promote", promote, verdict=verdict, scores=scores, candidate=candidate, onnx=onnx)
            run(
                "report",
                report,
                dataset=dataset,
                triplets=triplets,
                onnx=onnx,
                scores=scores,
                verdict=verdict,
                promotion=promoted.outputs["promotion"],
            )

    return retrain
