"""GRPO on one page: what a run does in every step, with Shoal's own parts and nothing between them. Read this first.

A toy model that knows the sums of two numbers, but mostly says them wrong, learns to say them right:

    python docs/grpo_in_one_page.py     # about a minute on a CPU

ARCHITECTURE.md has what a run adds: processes, versions, deadlines, faults, records, a learner of several ranks.
Dimensions: P prompts, G completions of each, B = P * G, T tokens with padding, N sampled tokens laid end to end.
"""

import os
from dataclasses import replace

# Read when the libraries are imported: matrices this small are fastest on one thread.
os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from cluster.configuration.loading import load_config
from learner.algorithm.advantages import group_advantages
from learner.algorithm.aggregation import completion_token_weight
from learner.algorithm.batching import ModelInputs
from learner.algorithm.loss import Loss
from learner.algorithm.tokens import TokenValues
from learner.model.policy import LogprobModel, build_policy
from learner.model.source import resolve_model
from reward.math.answer import math_reward
from reward.types import RewardInput
from rollout.config import tasks_of
from rollout.engines.protocol import EngineOutput, SampleSpec
from rollout.engines.vllm import VLLMEngine
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.prompt_building import build_prompts
from rollout.prompts.stream import PromptStream, sample_seed
from rollout.transfer.manifest import TensorSpec
from rollout.types import Prompt

config = load_config("tiny")
P, G, sampling = config.rollout.prompts_per_step, config.rollout.group_size, config.rollout.sampling


def sample(engine: VLLMEngine, prompts_B: list[Prompt]) -> list[EngineOutput]:
    """[B] completions, each with the log-probability that the engine gave to every token."""
    seeds_B = [sample_seed(0, "train", prompt.epoch, prompt.uid, i % G) for i, prompt in enumerate(prompts_B)]
    for i, (prompt, seed) in enumerate(zip(prompts_B, seeds_B, strict=True)):
        engine.add([SampleSpec(request_id=str(i), token_ids=prompt.token_ids, sampling=sampling, seed=seed)])
    outputs: dict[str, EngineOutput] = {}
    while engine.has_unfinished():
        outputs |= {output.request_id: output for output in engine.step()}
    return [outputs[str(i)] for i in range(len(prompts_B))]


def score(prompt: Prompt, output: EngineOutput) -> float:
    """1 for the right answer, else 0."""
    item = RewardInput(question=prompt.question, prompt=prompt.text, completion=output.text)
    return math_reward(replace(item, ground_truth=prompt.ground_truth))


def loss_of(
    policy: LogprobModel, prompts_B: list[Prompt], outputs_B: list[EngineOutput], rewards_B: list[float]
) -> Tensor:
    """The loss of one optimizer step. A completion is better or worse than its own group, never than another."""
    groups = [rewards_B[start : start + G] for start in range(0, len(rewards_B), G)]
    advantages_B = torch.tensor([a for rewards_G in groups for a in group_advantages(rewards_G, [True] * G)])
    pairs = list(zip(prompts_B, outputs_B, strict=True))
    ids_BT = pad_sequence([torch.tensor([*p.token_ids, *o.token_ids.tolist()]) for p, o in pairs], batch_first=True)
    starts_B = torch.tensor([len(prompt.token_ids) for prompt in prompts_B])
    lengths_B = torch.tensor([len(output.token_ids) for output in outputs_B])
    places_BT = torch.arange(ids_BT.shape[1]) - starts_B[:, None]
    sampled_BT = (places_BT >= 0) & (places_BT < lengths_B[:, None])
    predicting_N = sampled_BT.flatten().nonzero().squeeze(1) - 1  # the position before a token predicts it
    inputs = ModelInputs(input_ids_BT=ids_BT, positions_N=predicting_N)
    logprobs_N, entropy_N = policy(inputs, ids_BT[sampled_BT], sampling.temperature)
    weights_B = torch.tensor([completion_token_weight(int(length), len(pairs)) for length in lengths_B])
    tokens = TokenValues(  # without a reference: no KL term, as in the recipe
        policy_N=logprobs_N,
        sampler_N=torch.cat([torch.from_numpy(output.logprobs) for output in outputs_B]),
        advantages_N=advantages_B.float().repeat_interleave(lengths_B),
        token_weights_N=weights_B.repeat_interleave(lengths_B),
        mask_N=torch.ones_like(logprobs_N, dtype=torch.bool),
        entropy_N=entropy_N,
        index_N=torch.arange(len(pairs)).repeat_interleave(lengths_B),
        num_completions=len(pairs),
    )
    loss, _ = Loss(config.learner.objective)(tokens)
    return loss


def send(policy: LogprobModel, engine: VLLMEngine, version: int) -> None:
    """The new weights into the engine, which forgets what it computed with the old ones."""
    weights = policy.named_weights()
    engine.start_weight_update()
    for name, weight in weights.items():
        spec = TensorSpec(name=name, dtype="float32", shape=tuple(weight.shape))
        engine.load_tensors([(spec, weight.detach().view(-1).view(torch.uint8).numpy())])
    engine.finish_weight_update(version)


def main() -> None:
    """Trains, and prints a line for each step."""
    model_dir = str(resolve_model(config.model.path, announce=print))
    tokenizer = load_tokenizer(model_dir)
    (task,) = tasks_of(config.task)
    questions = build_prompts(tokenizer, task, config.model, split="train", max_tokens=sampling.max_tokens)
    stream = PromptStream(questions, seed=0)
    engine = VLLMEngine(model_dir, config.model, config.rollout, seed=0)
    policy = build_policy(model_dir, dtype="float32", gradient_checkpointing=False)
    optimizer = torch.optim.AdamW(policy.parameters(), config.learner.lr, config.learner.betas, weight_decay=0.0)
    for step in range(config.steps):
        prompts_B = [prompt for prompt in (stream.next() for _ in range(P)) for _ in range(G)]
        outputs_B = sample(engine, prompts_B)
        rewards_B = [score(prompt, output) for prompt, output in zip(prompts_B, outputs_B, strict=True)]
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(policy, prompts_B, outputs_B, rewards_B))
        clip_grad_norm_(policy.parameters(), config.learner.max_grad_norm)
        optimizer.step()
        send(policy, engine, step + 1)
        mean = sum(rewards_B) / len(rewards_B)
        print(f"step {step:2}  reward {mean:.3f}  {'#' * round(60 * mean)}", flush=True)


if __name__ == "__main__":
    main()
