-- What else can be done to a miner, as its profile says.
alter table miners add column can_reboot bigint not null default 0;
alter table miners add column can_locate bigint not null default 0;
alter table miners add column can_set_pools bigint not null default 0;

-- Whether each miner could be stopped and woken, as its agent last found out without writing.
create table readiness (
    miner_id text primary key,
    agent_id text not null,
    -- What stands against it, by name, parted by commas; nothing: it is ready.
    blockers text not null,
    access text not null,
    -- The last write that was proven by its effect.
    proven_at bigint,
    proven_wake bigint,
    proven_shape text,
    at bigint not null,
    received_at bigint not null,
    -- Where in which journal this was said: of two reports, the later one stands.
    epoch text not null,
    place bigint not null
);
create index readiness_by_agent on readiness (agent_id, received_at);
