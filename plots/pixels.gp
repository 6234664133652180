# pixels.gp - one picture of boxes. data: a block of "x1 x2 y1 y2 colour" a picture; block: its number.
unset border
unset xtics
unset ytics
unset grid
set style fill solid 1.0 noborder
plot data index block using (($1+$2)/2):(($3+$4)/2):1:2:3:4:5 with boxxyerror linecolor rgb variable notitle
