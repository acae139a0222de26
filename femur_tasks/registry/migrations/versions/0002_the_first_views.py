"""The first views: what people query first"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MODEL_REGISTRY = """
create view model_registry as
select
    mv.name as model,
    mv.version,
    mv.family,
    case
        when c.model_version_id is not null then 'champion'
        when exists (select 1 from promotion p where p.to_id = mv.id) then 'former champion'
        else 'candidate'
    end as status,
    e.mean_dice as test_dice,
    e.worst_dice as test_worst_dice,
    e.mean_hd95_pct as test_hd95_pct,
    e.cases as test_cases,
    mv.val_dice,
    dv.name as dataset,
    mv.dataset_digest,
    v.outcome as verdict,
    (
        select r.code from verdict_reason r
        where r.verdict_id = v.id and not r.passed
        order by r.position limit 1
    ) as refused_for,
    c.since as champion_since,
    mv.run_id,
    mv.artefact_key,
    mv.created_at
from model_version mv
join dataset_version dv on dv.digest = mv.dataset_digest
left join champion c on c.model_version_id = mv.id and c.model = mv.name
left join verdict v on v.id = (select max(w.id) from verdict w where w.challenger_id = mv.id)
left join evaluation e on e.id = (
    select max(x.id) from evaluation x where x.model_version_id = mv.id and x.split = 'test'
)
"""

CHAMPION_HISTORY = """
create view champion_history as
select
    p.model,
    mv.version,
    mv.family,
    p.at as since,
    (select min(q.at) from promotion q where q.model = p.model and q.id > p.id) as until,
    p.kind,
    was.version as previous_version,
    p.actor,
    p.reason,
    p.verdict_id,
    v.mean_difference,
    v.difference_low,
    v.difference_high,
    p.id as promotion_id
from promotion p
join model_version mv on mv.id = p.to_id
left join model_version was on was.id = p.from_id
left join verdict v on v.id = p.verdict_id
"""


def upgrade() -> None:
    op.execute(MODEL_REGISTRY)
    op.execute(CHAMPION_HISTORY)


def downgrade() -> None:
    op.execute("drop view champion_history")
    op.execute("drop view model_registry")
