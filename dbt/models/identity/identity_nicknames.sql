with final (nickname, given_name) as (
    values
        ('abby', 'abigail'), ('al', 'albert'), ('al', 'alan'), ('alex', 'alexander'), ('alex', 'alexandra'),
        ('andy', 'andrew'), ('angie', 'angela'), ('annie', 'anne'), ('barb', 'barbara'), ('becky', 'rebecca'),
        ('bella', 'isabella'), ('ben', 'benjamin'), ('beth', 'elizabeth'), ('bill', 'william'), ('billy', 'william'),
        ('bob', 'robert'), ('bobby', 'robert'), ('cathy', 'catherine'), ('charlie', 'charles'),
        ('charlie', 'charlotte'), ('chris', 'christina'), ('chris', 'christine'), ('chris', 'christopher'),
        ('chuck', 'charles'), ('cindy', 'cynthia'), ('dan', 'daniel'), ('danny', 'daniel'), ('dave', 'david'),
        ('deb', 'deborah'), ('debbie', 'deborah'), ('dick', 'richard'), ('don', 'donald'), ('doug', 'douglas'),
        ('ed', 'edward'), ('eddie', 'edward'), ('ellie', 'eleanor'), ('frank', 'francis'), ('fred', 'frederick'),
        ('gabi', 'gabriela'), ('gabe', 'gabriel'), ('gene', 'eugene'), ('greg', 'gregory'), ('hank', 'henry'),
        ('harry', 'harold'), ('harry', 'henry'), ('jack', 'john'), ('jackie', 'jacqueline'), ('jake', 'jacob'),
        ('jeff', 'jeffrey'), ('jen', 'jennifer'), ('jenny', 'jennifer'), ('jerry', 'gerald'), ('jess', 'jessica'),
        ('jessie', 'jessica'), ('jim', 'james'), ('jimmy', 'james'), ('joe', 'joseph'), ('joey', 'joseph'),
        ('johnny', 'john'), ('jon', 'jonathan'), ('josh', 'joshua'), ('kate', 'katherine'), ('kathy', 'katherine'),
        ('katie', 'katherine'), ('ken', 'kenneth'), ('kenny', 'kenneth'), ('kim', 'kimberly'), ('larry', 'lawrence'),
        ('lena', 'helena'), ('lena', 'magdalena'), ('len', 'leonard'), ('leo', 'leonard'), ('lexi', 'alexandra'),
        ('liz', 'elizabeth'), ('lizzie', 'elizabeth'), ('maddie', 'madeleine'), ('maddie', 'madison'),
        ('maggie', 'margaret'), ('mandy', 'amanda'), ('matt', 'matthew'), ('meg', 'margaret'), ('mel', 'melanie'),
        ('mel', 'melissa'), ('mike', 'michael'), ('mindy', 'melinda'), ('nancy', 'ann'), ('nate', 'nathan'),
        ('nate', 'nathaniel'), ('ned', 'edward'), ('nick', 'nicholas'), ('ollie', 'oliver'), ('ollie', 'olivia'),
        ('pam', 'pamela'), ('pat', 'patricia'), ('pat', 'patrick'), ('patty', 'patricia'), ('peggy', 'margaret'),
        ('pete', 'peter'), ('phil', 'philip'), ('phil', 'phillip'), ('ray', 'raymond'), ('rich', 'richard'),
        ('rick', 'richard'), ('rob', 'robert'), ('ron', 'ronald'), ('ronnie', 'ronald'), ('sally', 'sarah'),
        ('sam', 'samantha'), ('sam', 'samuel'), ('sammy', 'samuel'), ('sandy', 'sandra'), ('steph', 'stephanie'),
        ('steve', 'stephen'), ('steve', 'steven'), ('sue', 'susan'), ('susie', 'susan'), ('susie', 'susanna'),
        ('talia', 'natalia'), ('ted', 'edward'), ('ted', 'theodore'), ('teddy', 'theodore'), ('terry', 'terence'),
        ('terry', 'theresa'), ('tim', 'timothy'), ('tina', 'christina'), ('toby', 'tobias'), ('tom', 'thomas'),
        ('tommy', 'thomas'), ('tony', 'anthony'), ('val', 'valerie'), ('vicky', 'victoria'), ('vince', 'vincent'),
        ('walt', 'walter'), ('will', 'william'), ('zach', 'zachary')
)

select * from final
