"""How long a group may take to be scored, and a batch to come together."""

from cluster.config import RunConfig
from cluster.fleet.reward_models import model_deadline_s
from cluster.fleet.roles import REWARD_MODEL_START_S, reward_start_deadline_s

MIN_SCORING_ATTEMPTS = 3


def max_scoring_attempts(config: RunConfig) -> int:
    """Times that a group is given to a reward worker: one more than it takes to have a worker that hangs restarted."""
    return max(MIN_SCORING_ATTEMPTS, config.recovery.unhealthy_after + 1)


def scoring_deadline_s(config: RunConfig, num_completions: int, *, num_children: int) -> float:
    """Seconds for that many completions on that many children, if each is killed at its deadline, in turn; then, if a
    reward model is restarted meanwhile, for as many of every reward worker in batches of its own, each at its deadline.
    """
    reward = config.reward
    functions_s = reward.longest_s * num_completions / num_children
    if reward.asking_s:  # groups that wait for another have their own deadline behind its
        smallest = min(config.rollout.group_size, config.eval.num_samples)
        in_turn = -(-num_completions // (smallest * reward.groups_at_once))
        functions_s += in_turn * reward.asking_s
    if reward.reward_model is None:
        return 60.0 + functions_s
    model = reward.reward_model
    num_batches = 1 + num_completions * reward.num_workers / model.batch_size / model.num_workers
    return 60.0 + functions_s + REWARD_MODEL_START_S + num_batches * model_deadline_s(reward)


def teacher_deadline_s(config: RunConfig, num_completions: int) -> float:
    """Seconds until a teacher's server was asked about that many completions, if every request takes all attempts that
    it has; 0 without one."""
    teacher = config.learner.teacher
    if teacher is None or teacher.base_url is None:
        return 0.0
    in_turn = -(-num_completions // teacher.endpoint.max_requests)
    return 60.0 + in_turn * teacher.endpoint.longest_s


def longest_scoring_s(config: RunConfig) -> float:
    """Seconds until a group has its scores or the run has an error, behind every group that may be waiting."""
    groups = (config.max_policy_lag + 1) * config.rollout.prompts_per_step + config.eval.num_prompts
    completions = groups * max(config.rollout.group_size, config.eval.num_samples)
    once = scoring_deadline_s(config, completions, num_children=config.reward.children_per_worker)
    taught_s = teacher_deadline_s(config, completions)
    return max_scoring_attempts(config) * (once + reward_start_deadline_s(config) + taught_s)


def batch_deadline_s(config: RunConfig) -> float:
    """Longer than the groups of a batch can take, each within deadlines of its own: every attempt to sample, with a
    sampler that is started and synced anew before it, then every attempt to score, and as often as groups are sampled
    in place of rejected ones. For what no group's deadline covers."""
    recovery, rollout = config.recovery, config.rollout
    attempts = recovery.max_restarts + 1 if config.deterministic else recovery.max_attempts
    once = rollout.group_deadline_s + rollout.start_deadline_s + config.weight_sync.deadline_s
    return (attempts * once + longest_scoring_s(config)) * (1 + config.dynamic_sampling.max_resample_factor)
