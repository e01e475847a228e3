-- Every generated value is a draw: a number in [0, 1) that depends on the seed, the household and the purpose
-- only. No row order, no random(): the slice and the full run agree row by row, whatever the machine.
create or replace temp macro draw(household_id, purpose) as
  (md5_number_lower('activations-demo-1|' || household_id || '|' || purpose) % 1000000007) / 1000000007.0;

create or replace temp macro below(n, household_id, purpose) as
  cast(floor(draw(household_id, purpose) * n) as integer);

create or replace temp macro token(household_id, purpose) as
  left(md5('activations-demo-1|' || household_id || '|' || purpose), 16);

create or replace temp macro choose(options, household_id, purpose) as
  options[1 + below(len(options), household_id, purpose)];
