# bars.gp - groups of bars, side by side or stacked.
# data: from block `first` on, one block "x bottom top lo hi" per series, then one block
# "x y label". series: their number.
# labels: 1 when there is a label. barwidth: width of one bar. fill[i]: colour of series i.
# labelfont, labelangle: font and angle of the labels.
set style fill solid 1.0 noborder
set grid noxtics ytics
plot for [i=1:series] data index first+i-1 using 1:(($2+$3)/2):($1-barwidth/2):($1+barwidth/2):2:3 \
       with boxxyerror linecolor rgb fill[i] notitle, \
     for [i=1:series] data index first+i-1 using 1:($4==$4 ? $3 : NaN):4:5 with yerrorbars \
       linecolor rgb rule pointtype 0 pointsize 0 linewidth 0.8 notitle, \
     0 with lines linecolor rgb rule linewidth 0.8 notitle, \
     for [i=1:labels*!labelangle] data index first+series using 1:2:3 with labels offset 0,0.7 \
       font labelfont textcolor rgb ink notitle, \
     for [i=1:labels*!!labelangle] data index first+series using 1:2:3 with labels left rotate by 90 \
       offset 0,0.4 font labelfont textcolor rgb ink notitle
