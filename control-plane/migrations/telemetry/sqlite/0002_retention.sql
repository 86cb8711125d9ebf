-- Readings grow old: what is kept of them, for how long, and what was dropped.

-- A key goes when no batch leans on it any more.
create index batches_by_key on batches (agent_id, epoch, key_seq);
create index batches_absurd on batches (agent_id, received_at) where absurd_time = 1;

-- Small numbers of each agent's miners, given once.
create table miner_numbers (
    agent_id text not null,
    number integer not null,
    miner_id text not null,
    primary key (agent_id, number),
    unique (agent_id, miner_id)
) strict;

-- Sums of each miner of an agent over five minutes, an hour or a day, by miner number.
create table rollups (
    agent_id text not null,
    -- Milliseconds.
    length integer not null,
    bucket integer not null,
    miners integer not null,
    -- Its parts are dropped; what comes later is added to it.
    sealed integer not null default 0,
    body blob not null,
    primary key (agent_id, length, bucket)
) strict;
create index rollups_by_age on rollups (length, agent_id, bucket);

-- Hours and days that are to be made of their parts, again or for the first time.
create table rollups_due (
    agent_id text not null,
    length integer not null,
    bucket integer not null,
    primary key (agent_id, length, bucket)
) strict;

-- What was dropped for its age, since the beginning.
create table dropped (
    agent_id text not null,
    kind text not null,
    pieces integer not null,
    samples integer not null,
    -- All of this kind before this time is gone.
    before integer not null,
    primary key (agent_id, kind)
) strict;
