-- Readings grow old: what is kept of them, for how long, and what was dropped.

-- A key goes when no batch leans on it any more.
create index batches_by_key on batches (agent_id, epoch, key_seq);
create index batches_absurd on batches (agent_id, received_at) where absurd_time = 1;

-- Small numbers of each agent's miners, given once.
create table miner_numbers (
    agent_id text not null,
    number bigint not null,
    miner_id text not null,
    primary key (agent_id, number),
    unique (agent_id, miner_id)
);

-- Sums of each miner of an agent over five minutes, an hour or a day, by miner number.
create table rollups (
    agent_id text not null,
    -- Milliseconds.
    length bigint not null,
    bucket bigint not null,
    miners bigint not null,
    -- Its parts are dropped; what comes later is added to it.
    sealed bigint not null default 0,
    body bytea not null,
    primary key (agent_id, length, bucket)
);
create index rollups_by_age on rollups (length, agent_id, bucket);

-- Hours and days that are to be made of their parts, again or for the first time.
create table rollups_due (
    agent_id text not null,
    length bigint not null,
    bucket bigint not null,
    primary key (agent_id, length, bucket)
);

-- What was dropped for its age, since the beginning.
create table dropped (
    agent_id text not null,
    kind text not null,
    pieces bigint not null,
    samples bigint not null,
    -- All of this kind before this time is gone.
    before bigint not null,
    primary key (agent_id, kind)
);

-- PostgreSQL alone: what is packed already is not packed again.
alter table rollups alter column body set storage external;
