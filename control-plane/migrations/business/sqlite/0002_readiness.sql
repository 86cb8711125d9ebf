-- What else can be done to a miner, as its profile says.
alter table miners add column can_reboot integer not null default 0;
alter table miners add column can_locate integer not null default 0;
alter table miners add column can_set_pools integer not null default 0;

-- Whether each miner could be stopped and woken, as its agent last found out without writing.
create table readiness (
    miner_id text primary key,
    agent_id text not null,
    -- What stands against it, by name, parted by commas; nothing: it is ready.
    blockers text not null,
    access text not null,
    -- The last write that was proven by its effect.
    proven_at integer,
    proven_wake integer,
    proven_shape text,
    at integer not null,
    received_at integer not null,
    -- Where in which journal this was said: of two reports, the later one stands.
    epoch text not null,
    place integer not null
) strict;
create index readiness_by_agent on readiness (agent_id, received_at);
