# bars.gp - groups of bars with intervals.
# data: one block "x y lo hi" per series, then one block "x y label". series: their number.
# labels: 1 when there is a label. barwidth: width of one bar. fill[i]: colour of series i. labelfont, labelangle: font and angle of the
# labels.
set boxwidth barwidth
set style fill solid 1.0 noborder
set grid noxtics ytics
plot for [i=1:series] data index i-1 using 1:2 with boxes linecolor rgb fill[i] notitle, \
     for [i=1:series] data index i-1 using 1:($3==$3 ? $2 : NaN):3:4 with yerrorbars \
       linecolor rgb '#444444' pointtype 0 pointsize 0 linewidth 0.8 notitle, \
     0 with lines linecolor rgb '#555555' linewidth 0.8 notitle, \
     for [i=1:labels*!labelangle] data index series using 1:2:3 with labels offset 0,0.7 font labelfont \
       textcolor rgb ink notitle, \
     for [i=1:labels*!!labelangle] data index series using 1:2:3 with labels left rotate by 90 \
       offset 0,0.4 font labelfont textcolor rgb ink notitle
