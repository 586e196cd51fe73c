BlogitsJ(Xoº<Ó6¾¢ùÎ¿6¾2oÏ>=
?<g²¾yWu¿™"¿BZ½