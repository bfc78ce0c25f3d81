"""The charts of episodes, which a run without any has not. Definitions, as data."""

from cluster.dashboard.views.charts import ChartSpec, SeriesSpec

EPISODES = (
    ChartSpec(
        id="turns",
        group="Episodes",
        title="Turns",
        help="Replies of the model in an episode, and calls of tools in them. Fewer may mean that it plays better, or "
        "that it gives up: look at the reward beside it.",
        series=(
            SeriesSpec(name="episode/turns_mean", label="turns"),
            SeriesSpec(name="episode/tool_calls_mean", label="tool calls"),
        ),
        always=False,
    ),
    ChartSpec(
        id="episode_ends",
        group="Episodes",
        title="How episodes end",
        help="`done` is the end that the world gives; turns, tokens and seconds are limits (task.limits). Where many "
        "reach one, the reward of an episode that was cut off decides what is learned: raise the limit.",
        series=(SeriesSpec(name="episode/ended_*", label=""),),
        always=False,
    ),
    ChartSpec(
        id="episode_scores",
        group="Episodes",
        title="Scores of the world",
        help="Mean of each score that the world gave, by its name; the reward is made of one of them.",
        series=(SeriesSpec(name="episode/score_*", label=""),),
        always=False,
    ),
    ChartSpec(
        id="episode_tokens",
        group="Episodes",
        title="Length of episodes",
        help="All tokens behind the opening, what the world said included: they have to fit into the model's context. "
        "The length of completions is that of what was sampled.",
        series=(SeriesSpec(name="episode/tokens_mean", label="mean"),),
        always=False,
    ),
    ChartSpec(
        id="episode_time",
        group="Episodes",
        title="Time of an episode",
        help="From the start of its world to its end, and the part of it in which the world was waited for; the rest "
        "is the engine's. Worlds that are waited for most of the time keep the engine idle unless there are many.",
        series=(
            SeriesSpec(name="episode/seconds_mean", label="mean"),
            SeriesSpec(name="episode/seconds_max", label="longest"),
            SeriesSpec(name="episode/world_s_mean", label="waiting for the world"),
        ),
        always=False,
    ),
    ChartSpec(
        id="begun_again",
        group="Episodes",
        title="Worlds begun again",
        help="Worlds that failed and were begun anew. After three the group is rejected for the reason `environment`.",
        series=(SeriesSpec(name="episode/begun_again", label="worlds", greatest=True),),
        always=False,
    ),
)
