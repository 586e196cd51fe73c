BlogitsJ(Ìoº<Í6¾ ùÎ¿6¾1oÏ>=
?:g²¾zWu¿€™"¿üAZ½