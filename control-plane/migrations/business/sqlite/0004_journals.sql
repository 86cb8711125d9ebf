-- The journal that an agent writes now: what an earlier one held and this one has not told of is told to it.
alter table agent_presence add column journal text;
