"""The DAG: raw text in, a gated and registered model out. The same definition runs here and on a cluster."""

from kfp import dsl

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
from embedline.pipelines.retrain.policy import computing, plain, reaching
from embedline.steps.code import COMPILED_FOR


@dsl.pipeline(name="embedline-retrain", display_name="Embedline: retrain")
def retrain(preset: str = "demo", overrides: str = "", workspace: str = "/workspace", run_name: str = ""):
    """Retrain an embedding model: clean, pretrain, train, export, evaluate, gate, promote.

    Args:
        preset: The run to do: a shipped preset's name, or the path of a preset file in the image.
        overrides: Changes to the preset, one section.key=value a line (or a JSON list); none when empty.
        workspace: Folder that all steps share (a mounted volume on a cluster): runs, store and checkpoints.
        run_name: Name of the run's folder in the workspace; the pipeline job's id when empty.
    """
    named = {"workspace": workspace, "run_name": run_name, "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    closing = finish(preset=preset, **named)
    plain(closing).set_display_name("finish")

    # A stage that is switched off hands its input on inside the step: the DAG is the same for every preset.
    with dsl.ExitHandler(closing, name="line"):
        checked = plain(preflight(preset=preset, overrides=overrides, **named))
        checked.set_env_variable(COMPILED_FOR, CODE)

        def common(step: str) -> dict:
            return {
                "slice_json": checked.outputs[step],
                "workspace": workspace,
                "run": checked.outputs["run"],
            }

        ingested = reaching(ingest(**common("ingest")))
        evaluation = ingested.outputs["evaluation"]
        cleaned = plain(clean(dataset=ingested.outputs["dataset"], evaluation=evaluation, **common("clean")))
        dataset = cleaned.outputs["cleaned"]

        pruned_base = computing(prune(step="prune_before", dataset=dataset, **common("prune_before")))
        pruned_base.set_display_name("prune (before)")
        pretrained = computing(
            pretrain(model=pruned_base.outputs["pruned"], dataset=dataset, **common("pretrain"))
        )
        unsupervised = computing(
            train_unsupervised(
                model=pretrained.outputs["trained"], dataset=dataset, **common("train_unsupervised")
            )
        )
        mined = computing(mine(model=unsupervised.outputs["trained"], dataset=dataset, **common("mine")))
        triplets = mined.outputs["triplets"]
        supervised = computing(
            train_supervised(
                model=unsupervised.outputs["trained"], triplets=triplets, **common("train_supervised")
            )
        )
        pruned = computing(
            prune(
                step="prune_after",
                model=supervised.outputs["trained"],
                dataset=dataset,
                **common("prune_after"),
            )
        )
        pruned.set_display_name("prune (after)")
        candidate = pruned.outputs["pruned"]

        exported = plain(export(model=candidate, evaluation=evaluation, **common("export")))
        onnx = exported.outputs["onnx"]
        evaluated = computing(
            evaluate(
                pretrained=pretrained.outputs["trained"],
                unsupervised=unsupervised.outputs["trained"],
                supervised=supervised.outputs["trained"],
                candidate=candidate,
                onnx=onnx,
                evaluation=evaluation,
                **common("evaluate"),
            )
        )
        scores = evaluated.outputs["scores"]
        judged = plain(gate(scores=scores, onnx=onnx, candidate=candidate, **common("gate")))
        verdict = judged.outputs["verdict"]
        promoted = reaching(
            promote(verdict=verdict, scores=scores, candidate=candidate, onnx=onnx, **common("promote"))
        )
        plain(
            report(
                dataset=dataset,
                triplets=triplets,
                onnx=onnx,
                scores=scores,
                verdict=verdict,
                promotion=promoted.outputs["promotion"],
                **common("report"),
            )
        )
